"""The files of a data set in memory, as they are stored."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data.cpus import control_groups
from data.errors import DatasetError

READERS = 8  # threads; they wait for the disk or the network most of the time


class FileCache:
    """The bytes of files, each read once, in one buffer.

    Loader processes that are forked read their parent's pages, which nobody writes to; those that are spawned get the
    buffer through shared memory. So there is one copy however many they are.

    Args:
        paths: the files. One that cannot be read is left out.
        copies: of this cache that the memory of this host has to hold.
        on_file: called after each file.
    Raises:
        DatasetError: the memory that is available does not hold the copies.
    """

    def __init__(self, paths: Sequence[Path], copies: int = 1, on_file: Callable[[], object] = lambda: None) -> None:
        with ThreadPoolExecutor(READERS) as readers:
            sizes = np.fromiter(readers.map(_size, paths), dtype=np.int64, count=len(paths))
            self._offsets = np.concatenate([[0], sizes.cumsum()])
            available = _available_memory()
            if available is not None and self.num_bytes * copies > available:
                raise DatasetError(
                    f"data.cache: {copies} × {self.num_bytes / 1e9:.1f} GB of files do not fit into the "
                    f"{available / 1e9:.1f} GB of memory available; set data.cache=false"
                )
            self._buffer = torch.empty(self.num_bytes, dtype=torch.uint8)
            self._complete = torch.zeros(len(paths), dtype=torch.bool)
            for index, complete in enumerate(readers.map(self._fill, range(len(paths)), paths)):
                self._complete[index] = complete
                on_file()

    @property
    def num_bytes(self) -> int:
        return int(self._offsets[-1])

    def __getitem__(self, index: int) -> Tensor | None:
        """(n,) uint8, the bytes of a file, not to be written to; None for one that was left out."""
        if not self._complete[index]:
            return None
        return self._view(index)

    def _view(self, index: int) -> Tensor:
        return self._buffer[self._offsets[index] : self._offsets[index + 1]]

    def _fill(self, index: int, path: Path) -> bool:
        view = self._view(index)
        if not len(view):
            return False
        try:
            with open(path, "rb", buffering=0) as file:
                return file.readinto(view.numpy().data) == len(view)
        except OSError:
            return False


def _size(path: Path) -> int:
    try:
        return os.path.getsize(path) if path.is_file() else 0
    except OSError:
        return 0


def _available_memory() -> int | None:
    """Bytes that processes can still claim, here and in their container; None where the system says neither."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    known = [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    for folder in control_groups("memory"):
        for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            try:
                most = int((folder / limit).read_text())
            except (OSError, ValueError):  # not of this version of control groups, or "max"
                continue
            known.append(most - _claimed(folder, used))
    return min(known, default=None)


def _claimed(group: Path, used: str) -> int:
    """Bytes of a control group, without those of files that nobody reads now, which the system takes back; 0 where it
    does not say."""
    try:
        counts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        given_back = int(counts.get("total_inactive_file", counts.get("inactive_file", 0)))
        return max(0, int((group / used).read_text()) - given_back)
    except (OSError, ValueError):
        return 0
