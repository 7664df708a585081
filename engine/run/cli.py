"""The common part of all commands: user errors as one `error:` line, exit statuses, Ctrl-C, console logging.

Every command is written the same way, so that --help, a mistyped option and Ctrl-C answer at once: at its top it
imports this module and what its options need; its main() parses, and only then imports what does the work, because
PyTorch alone takes seconds. This module imports neither PyTorch nor anything that does.
"""

import atexit
import io
import os
import sys
import threading
from types import TracebackType

NOBODY_READS = 141  # what a shell says of a program whose output nobody reads any more: 128 + SIGPIPE


def _report_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """sys.excepthook of the commands: Ctrl-C is one line and status 130, whatever it interrupts; where `| head` has
    seen enough, no line and status 141."""
    if isinstance(error, BrokenPipeError) and not _is_output_read("\n"):  # else it is another pipe
        raise SystemExit(NOBODY_READS)
    if not _is_interrupt(error):
        sys.__excepthook__(kind, error, trace)
        return
    _say_interrupted()
    raise SystemExit(130)


def _report_uncaught_in_thread(failure: "threading.ExceptHookArgs") -> None:
    """threading.excepthook of the commands: the writer of TensorBoard's events, whose next point raises its error in
    the main thread, says nothing itself."""
    if not (isinstance(failure.exc_value, OSError) and type(failure.thread).__name__ == "_AsyncWriterThread"):
        threading.__excepthook__(failure)


def _is_interrupt(error: BaseException | None) -> bool:
    """Whether Ctrl-C is the reason, if only because a library that it interrupted failed to put things back."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _is_output_read(text: str = "") -> bool:
    """Whether standard output takes this text, and what was printed before it; if not, nothing of it goes anywhere."""
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True


def _say_interrupted() -> None:
    if int(os.environ.get("LOCAL_RANK", 0)) == 0:
        print("error: interrupted", file=sys.stderr, flush=True)


# Threads that spin at a barrier keep the CPU from the one that they wait for, where other programs run too; those that
# sleep at once are slow to wake, where none do. So they spin for a moment (10,000 turns are a quarter of a millisecond)
# and then sleep. OpenMP asks once, when PyTorch is loaded.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
threading.excepthook = _report_uncaught_in_thread
atexit.register(_is_output_read)  # Python's own flush comes after it, and would complain
sys.excepthook = _report_uncaught  # before the imports below: Ctrl-C may come while they are still at work
for _stream in (sys.stdout, sys.stderr):
    if isinstance(_stream, io.TextIOWrapper):  # names of classes and files may hold what the terminal cannot show
        _stream.reconfigure(errors="backslashreplace")

import argparse
import errno
import logging
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from engine.run.progress import LinesAboveBars, hide_progress

if TYPE_CHECKING:
    from engine.run.distributed import Processes

MAIN_SPEAKS_SECONDS = 20.0
# a disk, or what a user may write to it; systems lack the second
FULL = [getattr(errno, name) for name in ("ENOSPC", "EDQUOT") if hasattr(errno, name)]


class ArgumentParser(argparse.ArgumentParser):
    """Parser that prints descriptions as they are written, and whose errors are one `error:` line too, for all
    processes of a host together."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def error(self, message: str) -> NoReturn:
        _print_error(f"{message}; --help lists the options", quiet=int(os.environ.get("LOCAL_RANK", 0)) != 0)
        raise SystemExit(2)


@contextmanager
def user_errors(quiet: bool = False, processes: "Processes | None" = None) -> Iterator[None]:
    """Ends the program with one `error:` line: status 2 for bad usage, config or data, 1 for failed work.

    Args:
        quiet: leave the line to the main process; for those beside it while all would fail alike.
        processes: once they are joined: only the first of them to fail says why, or shows its traceback.
    """
    try:
        yield
    except Exception as error:
        message, status = _diagnose(error)
        if processes is not None and not processes.first_to_fail():
            raise SystemExit(status) from None
        if message is None:
            raise
        _print_error(message, quiet)
        raise SystemExit(status) from None


def _diagnose(error: Exception) -> tuple[str | None, int]:
    """Message for the user, None for a bug, and the exit status."""
    text = str(error)
    status = getattr(error, "exit_status", None)  # of the exceptions whose message is written for the user
    if status is not None:
        return text, status
    if isinstance(error, IsADirectoryError) and error.filename is not None:
        return f"{error.filename}: is a folder; name a file", 1
    if isinstance(error, OSError) and (error.filename is not None or error.errno in FULL):
        where = f"{error.filename}: " if error.filename is not None else ""
        full = error.errno in FULL
        remedy = "make room, or choose another folder" if full else "check that the path exists and is writable"
        return f"{where}{error.strerror}; {remedy}", 1
    no_memory = "can't allocate memory" in text or "not enough memory" in text
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and no_memory):
        return _out_of_memory(text), 1
    if "torch" in sys.modules:  # else none of its errors can have come
        return _diagnose_torch(error), 1
    return None, 1


def _diagnose_torch(error: Exception) -> str | None:
    """Message for the user about an error that PyTorch raises; None for a bug."""
    import torch
    import torch.distributed as dist

    if isinstance(error, torch.OutOfMemoryError):
        return _out_of_memory(str(error))
    # a collective failed because another process ended, cannot be reached or kept this one waiting
    if isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error)):
        return (
            f"lost contact with another process: it died, or kept this one waiting for longer than "
            f"run.collective_minutes; continue with --resume auto ({str(error).splitlines()[0]})"
        )
    return None


def _out_of_memory(reason: str) -> str:
    first = (reason.splitlines() or ["no memory left"])[0]
    return (
        "out of memory: lower data.batch_size, or raise data.accumulate to split the same batch; "
        f"in evaluation lower evaluation.batch_size ({first})"
    )


def _print_error(message: str, quiet: bool) -> None:
    if quiet:
        time.sleep(MAIN_SPEAKS_SECONDS)  # before that torchrun ends this process with the main one, if that failed too
    print("error: " + " ".join(message.split()), file=sys.stderr, flush=True)


def log_to_console(is_main: bool, quiet: bool = False) -> None:
    """Plain lines on standard error: everything from the main process, errors from the others.

    With `quiet` only warnings and errors, and no progress bars.
    """
    if quiet:
        hide_progress()
    console = LinesAboveBars(sys.stderr)
    console.setLevel(logging.WARNING if quiet else logging.INFO)  # a log file has the other lines too
    logging.basicConfig(
        level=logging.INFO if is_main else logging.ERROR,
        format="%(message)s",
        handlers=[console],
        force=True,
    )
    logging.captureWarnings(True)


def run_process(main: Callable[[], int]) -> NoReturn:
    """Runs the main() of a command and ends the process with its exit status; one of several processes without
    destructors.

    Gloo's process group joins its threads when DistributedDataParallel lets go of it, holding the lock that they need;
    and a process that failed must be gone at once, for the others to notice.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        sys.exit(main())
    try:
        status = main()
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 1
    except BaseException as error:
        status = 130 if _is_interrupt(error) else 1
        if status == 130:
            _say_interrupted()
        else:
            traceback.print_exc()
    _is_output_read()
    sys.stderr.flush()
    os._exit(status)
