"""A look-up table in front of the search for a logit's bin, in Triton kernels."""

import torch
import triton
import triton.language as tl
from torch import Tensor

CELLS_PER_EDGE, MIN_CELLS, MAX_CELLS = 4, 1 << 10, 1 << 16  # 256 KiB at most, which stays in the cache
ENTRIES = 128  # of a program


def build_table(edges: Tensor) -> tuple[Tensor, Tensor]:
    """Edges (K,), ascending, in C + 1 equal cells of the axis, C a power of two.

    Returns:
        (C + 1,) int32, number of edges before each of C cells, and of all; and (1,) float32, cells in a unit.
    """
    num_cells = min(MAX_CELLS, max(MIN_CELLS, triton.next_power_of_2(CELLS_PER_EDGE * len(edges))))
    starts = torch.empty(num_cells + 1, dtype=torch.int32, device=edges.device)
    cells_per_unit = torch.empty(1, device=edges.device)
    exponent = 252 + num_cells.bit_length()
    _cells[triton.cdiv(num_cells + 1, ENTRIES),](
        edges, len(edges), starts, cells_per_unit, num_cells, exponent, ENTRIES
    )
    return starts, cells_per_unit


@triton.jit
def _cell(logit, first, cells_per_unit, num_cells):
    """The cell of each logit, of equal cuts of the axis from the first edge on, the last without end.

    Whatever it rounds, a larger logit is never in an earlier cell: a subtraction and a power of two see to that, which
    leave a compiler nothing to choose. Below the first edge and for NaN it is 0.
    """
    distance = (logit - first).to(tl.float32) * cells_per_unit
    return tl.where(distance > 0, tl.minimum(distance, (num_cells - 1).to(tl.float32)), 0.0).to(tl.int32)


@triton.jit(do_not_specialize=["num_edges", "num_cells", "exponent"])
def _cells(edges, num_edges, starts, cells_per_unit, num_cells, exponent, ENTRIES: tl.constexpr):
    """Number of edges in cells before each cell.

    The exponent, with its bias, of the power of two that cuts a span of 2**-126 into all cells.
    """
    first = tl.load(edges)
    span = (tl.load(edges + num_edges - 1) - first).to(tl.float32)  # below 2 to its exponent, without bias, plus 1
    exponent -= (span.to(tl.int32, bitcast=True) >> 23) & 255
    scale = (tl.minimum(exponent, 254) << 23).to(tl.float32, bitcast=True)
    index = tl.program_id(0) * ENTRIES + tl.arange(0, ENTRIES)
    low = tl.zeros([ENTRIES], tl.int32)
    high = low + num_edges
    left = num_edges
    while left > 0:
        middle = (low + high) // 2
        edge = tl.load(edges + middle, mask=low < high, other=0)
        below = (low < high) & (_cell(edge, first, scale, num_cells) < index)
        high = tl.where(below, high, tl.minimum(middle, high))
        low = tl.where(below, middle + 1, low)
        left //= 2
    tl.store(starts + index, low, mask=index <= num_cells)
    tl.store(cells_per_unit + index, scale, mask=index == 0)


@triton.jit
def find_bin(logit, edges, starts, cells_per_unit, num_cells):
    """Number of edges at or below each logit: its cell says between which to search, mostly none."""
    start = starts + _cell(logit, tl.load(edges), tl.load(cells_per_unit), num_cells)
    low, high = tl.load(start), tl.load(start + 1)
    left = tl.max(high - low)
    while left > 0:
        middle = (low + high) // 2
        below = (tl.load(edges + middle, mask=low < high, other=0) <= logit) & (low < high)
        high = tl.where(below, high, tl.minimum(middle, high))
        low = tl.where(below, middle + 1, low)
        left //= 2
    return low
