"""What the entry points share: user errors as one `error:` line, exit statuses, console logging."""

import argparse
import errno
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import torch

from engine.run.distributed import Processes, is_lost_contact
from engine.run.progress import hide_progress

MAIN_SPEAKS_SECONDS = 20.0


class ArgumentParser(argparse.ArgumentParser):
    """Parser whose errors are one `error:` line too, for all processes of a host together."""

    def error(self, message: str) -> NoReturn:
        _print_error(f"{message}; --help lists the options", quiet=int(os.environ.get("LOCAL_RANK", 0)) != 0)
        raise SystemExit(2)


@contextmanager
def user_errors(quiet: bool = False, processes: Processes | None = None) -> Iterator[None]:
    """Ends the program with one `error:` line: status 2 for bad usage, config or data, 1 for failed work.

    Args:
        quiet: leave the line to the main process; for those beside it while all would fail alike.
        processes: once they are joined: only the first of them to fail says why, or shows its traceback.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except Exception as error:
        message, status = _diagnose(error)
        if processes is not None and not processes.first_to_fail():
            raise SystemExit(status) from None
        if message is None:
            raise
        _print_error(message, quiet)
        raise SystemExit(status) from None


def _diagnose(error: Exception) -> tuple[str | None, int]:
    """What to tell the user, None for a bug, and the exit status."""
    text = str(error)
    status = getattr(error, "exit_status", None)  # of the exceptions whose message is written for the user
    if status is not None:
        return text, status
    if isinstance(error, OSError) and (error.filename is not None or error.errno == errno.ENOSPC):
        where = f"{error.filename}: " if error.filename is not None else ""
        return f"{where}{error.strerror}; check that the path exists, is writable and has space", 1
    no_memory = "can't allocate memory" in text or "not enough memory" in text
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or (isinstance(error, RuntimeError) and no_memory):
        return _out_of_memory(text), 1
    if is_lost_contact(error):
        return (
            f"lost contact with another process: it died, or kept this one waiting for longer than "
            f"run.collective_minutes; continue with --resume auto ({text.splitlines()[0]})"
        ), 1
    return None, 1


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
    level = logging.WARNING if quiet else logging.INFO
    logging.basicConfig(
        level=level if is_main else logging.ERROR,
        format="%(message)s",
        stream=sys.stderr,
        force=True,
    )
    logging.captureWarnings(True)
