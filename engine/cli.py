"""What the entry points share: user errors as one `error:` line, exit statuses, console logging."""

import argparse
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import torch

from data import DatasetError
from detector import WeightsError
from engine.checkpoint import CheckpointError
from engine.coco_metrics import DetectionsError
from engine.config import ConfigError
from engine.download import DownloadError
from engine.export import ExportError
from engine.progress import hide_progress
from engine.train_step import TrainingError

USER_ERRORS = (ConfigError, DatasetError, WeightsError, CheckpointError, DetectionsError, ExportError)


class ArgumentParser(argparse.ArgumentParser):
    """Parser whose errors are one `error:` line too."""

    def error(self, message: str) -> NoReturn:
        _exit(f"{message}; --help lists the options", 2, quiet=False)


@contextmanager
def user_errors(quiet: bool = False) -> Iterator[None]:
    """Ends the program with one `error:` line: status 2 for bad usage, config or data, 1 for failed work.

    Args:
        quiet: print nothing; for the processes beside the main one while all would fail alike.
    """
    try:
        yield
    except USER_ERRORS as error:
        _exit(str(error), 2, quiet)
    except (TrainingError, DownloadError) as error:
        _exit(str(error), 1, quiet)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except (torch.OutOfMemoryError, MemoryError) as error:
        _exit(_out_of_memory(str(error)), 1, quiet)
    except OSError as error:
        if error.filename is None:
            raise
        _exit(
            f"{error.filename}: {error.strerror}; check that the path exists, is writable and has space",
            1,
            quiet,
        )
    except RuntimeError as error:
        if "can't allocate memory" not in str(error) and "not enough memory" not in str(error):
            raise
        _exit(_out_of_memory(str(error)), 1, quiet)


def _out_of_memory(reason: str) -> str:
    first = (reason.splitlines() or ["no memory left"])[0]
    return (
        "out of memory: lower data.batch_size, or raise data.accumulate to split the same batch; "
        f"in evaluation lower evaluation.batch_size ({first})"
    )


def _exit(message: str, status: int, quiet: bool) -> NoReturn:
    if not quiet:
        print("error: " + " ".join(message.split()), file=sys.stderr, flush=True)
    raise SystemExit(status)


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
