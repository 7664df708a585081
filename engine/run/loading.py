"""Waiting for the batches of a loader: it ends, whatever happens to the processes that make them."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from data.loader import HANDED_NOTHING_OVER, TIMEOUT
from engine.run.stop_signal import StopSignal

PATIENCE = 5  # times TIMEOUT seconds for a batch, counted in pieces: a suspended run goes on when it wakes up

Batch = TypeVar("Batch")


class LoaderError(RuntimeError):
    """Loader processes that died or do not answer; the message is one line for the user."""

    exit_status = 1


def wait_for_each(loader: Iterable[Batch]) -> Iterator[Batch]:
    """The batches of a loader.

    Raises:
        StoppedWaiting: a signal asked this process to stop, and the next batch does not come.
        RuntimeError: the loader's, to be told by `loader_errors`.
    """
    batches, failures = iter(loader), 0
    while True:
        try:
            with StopSignal.waiting():
                batch = next(batches)
        except StopIteration:
            return
        except RuntimeError as error:
            failures += 1
            if failures == PATIENCE or not str(error).startswith("DataLoader timed out"):
                raise
        else:
            failures = 0
            yield batch


@contextmanager
def loader_errors() -> Iterator[None]:
    """Turns what PyTorch raises of a lost loader process, also in the midst of other work, into LoaderError."""
    try:
        yield
    except RuntimeError as error:
        # the loader tells of a dead worker; what it was interrupted by, the signal of its death, may say more
        message = _explain(str(error.__cause__)) or _explain(str(error))
        if message is None:
            raise
        raise LoaderError(message) from None


def _explain(text: str) -> str | None:
    """The cause and its remedy; None for any other error."""
    if text.startswith("DataLoader timed out"):
        return (
            f"no batch came for {PATIENCE * TIMEOUT:.0f} seconds: look at the disk that the images are on, and at the "
            "free space of /dev/shm"
        )
    lost = re.match(r"DataLoader worker \(pid(?:\(s\))? [\d, ]*\) (.*)", text)
    if lost is None:
        return None
    how = lost[1].split(". ")[0].rstrip(".")
    if f"exit code {HANDED_NOTHING_OVER}" in how or "Bus error" in how:
        return (
            "a loader process could not hand over a batch: enlarge /dev/shm (docker run --shm-size), or lower "
            "data.workers"
        )
    return (
        f"a loader process was lost ({how}): if the system ran out of memory (dmesg), lower data.workers or "
        "data.batch_size"
    )
