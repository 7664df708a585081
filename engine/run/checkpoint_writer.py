"""Checkpoints written beside the training loop."""

import copy
import logging
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

State = dict[str, Any]

log = logging.getLogger(__name__)


class CheckpointWriter:
    """Hands snapshots of a run's state to a thread that writes them, one at a time and in their order.

    A context: its end waits for the writing, also after an error or a signal; a further signal breaks the wait off.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None

    def save(self, write: Callable[[State], None], state: State) -> None:
        """Has a snapshot of the state at this moment written; waits for the one before first.

        Args:
            write: called in the thread, with tensors on the CPU that change no more.
        Raises:
            OSError: the one before could not be written.
        """
        self.wait()
        # A copy where the tensors are: the way from a GPU is long, and is left to the thread.
        snapshot, taken = copy.deepcopy(state), None
        if torch.cuda.is_initialized():
            taken = torch.cuda.Event()
            taken.record()
        # A daemon, so that a further signal can end the process. What it was writing is under a temporary name.
        self._thread = threading.Thread(target=self._run, args=(write, snapshot, taken), daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises what the writing failed of, if it did; does not wait."""
        if self._thread is not None and not self._thread.is_alive():
            self.wait()

    def wait(self) -> None:
        """Waits until the last snapshot is on the disk. Raises as `save`."""
        self._join()
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self, write: Callable[[State], None], snapshot: State, taken: torch.cuda.Event | None) -> None:
        try:
            if taken is not None:
                # On a stream of its own, or the copies would wait for the training's kernels and these for them.
                with torch.cuda.stream(torch.cuda.Stream()):
                    taken.synchronize()
                    snapshot = tree_map_only(Tensor, Tensor.cpu, snapshot)
            write(snapshot)
        except Exception as error:
            self._failure = error

    def __enter__(self) -> "CheckpointWriter":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None or issubclass(kind, SystemExit):
            self.wait()
            return
        self._join()
        if self._failure is not None:  # what ended the run is the error to tell
            log.error("the last checkpoint was not written: %s", self._failure)
