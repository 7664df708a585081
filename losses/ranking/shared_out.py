"""Reading a table and adding to one at many indices, shared out among PyTorch's threads.

`index_select` and `index_add_` run on one thread of a CPU; `gather` and `scatter_add_` share out the rows of a matrix.
So the indices are laid out as a matrix with a row for each thread. All rows read the same table, and each adds to a
table of its own, so no two threads write to one place. On one thread, too, `scatter_add_` is the faster of the two.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

SHARE = 1 << 15  # PyTorch gives a thread at least so many entries of a matrix


class SharedOut:
    """The index operations of a ranking, for up to `size` indices at a time.

    Attributes:
        threads: that share a call; 1 on a GPU, whose operators need no help.
    """

    def __init__(self, size: int, device: torch.device) -> None:
        self._on_cpu = device.type == "cpu"
        self.threads = max(1, min(torch.get_num_threads(), size // SHARE)) if self._on_cpu else 1
        self._scratch = torch.empty(size if self._on_cpu else 0, dtype=torch.int64, device=device)

    def index(self, index: Tensor) -> Tensor:
        """The index (n,) int32 in the type that `look_up` takes; it lasts until the next call."""
        return index if self.threads == 1 else self._scratch[: len(index)].copy_(index)

    def look_up(self, table: Tensor, index: Tensor, out: Tensor) -> Tensor:
        """table[index], (n,) from (K,), written to `out`; the index is what `index` returned."""
        if self.threads == 1:
            return torch.index_select(table, 0, index, out=out)
        for rows, positions, found in _matrices(self.threads, index, out):
            torch.gather(table.expand(rows, -1), 1, positions, out=found)
        return out

    def tables(self, like: Tensor, length: int, num_entries: int) -> Tensor:
        """Zeros (rows, length) to add that many entries to, not so many rows that their sum takes longer than that."""
        return like.new_zeros(max(1, min(self.threads, num_entries // (2 * length))), length)

    def add(self, tables: Tensor, index: Tensor, values: Tensor) -> None:
        """Adds values (n,) at the index (n,) int32 to one or the other row of the tables (rows, K)."""
        if not self._on_cpu:
            tables[0].index_add_(0, index, values)
            return
        index = self._scratch[: len(index)].copy_(index)
        for rows, positions, added in _matrices(len(tables), index, values):
            tables[:rows].scatter_add_(1, positions, added)


def _matrices(rows: int, index: Tensor, values: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Two vectors (n,) as matrices of so many rows, and what is left over as matrices of one row."""
    left = len(index) % rows
    if left:
        yield from _matrices(rows, index[:-left], values[:-left])
        yield 1, index[None, -left:], values[None, -left:]
    elif len(index):
        yield rows, index.view(rows, -1), values.view(rows, -1)
