"""A look-up table in front of the search for a logit's bin, in Triton kernels."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..triton_support import ceil_div, power_of_two

CELLS_PER_EDGE, MIN_CELLS, MAX_CELLS = 4, 1 << 10, 1 << 16  # 512 KiB at most, which stays in the cache
ENTRIES = 128  # of a program


def build_table(edges: Tensor) -> tuple[Tensor, Tensor]:
    """Edges (K,), ascending, in C equal cells of the axis, C a power of two.

    Returns:
        (C,) int64, of each cell the number of edges at or below all of it, and plus 2**32 times the number of edges
        before its end; and (1,) float32, cells in a unit.
    """
    num_cells = min(MAX_CELLS, max(MIN_CELLS, power_of_two(CELLS_PER_EDGE * len(edges))))
    ranges = torch.empty(num_cells, dtype=torch.int64, device=edges.device)
    cells_per_unit = torch.empty(1, device=edges.device)
    exponent = 252 + num_cells.bit_length()
    _cells[ceil_div(num_cells, ENTRIES),](edges, len(edges), ranges, cells_per_unit, num_cells, exponent, ENTRIES)
    return ranges, cells_per_unit


@triton.jit
def _cell(logit, first, cells_per_unit, num_cells):
    """The cell of each logit, of equal cuts of the axis from the first edge on, the last without end.

    Whatever it rounds, a larger logit is never in an earlier cell: a subtraction and a power of two see to that, which
    leave a compiler nothing to choose. Below the first edge and for NaN it is 0.
    """
    distance = (logit - first).to(tl.float32) * cells_per_unit
    return tl.where(distance > 0, tl.minimum(distance, (num_cells - 1).to(tl.float32)), 0.0).to(tl.int32)


@triton.jit
def next_above(number):
    """Next larger number of the same type."""
    if number.dtype == tl.float64:
        bits = number.to(tl.int64, bitcast=True)
        bits = tl.where(number == 0, 1, tl.where(number > 0, bits + 1, bits - 1))
        above = bits.to(tl.float64, bitcast=True)
    else:
        bits = number.to(tl.int32, bitcast=True)
        bits = tl.where(number == 0, 1, tl.where(number > 0, bits + 1, bits - 1))
        above = bits.to(tl.float32, bitcast=True)
    return above


@triton.jit
def _edges_before(edges, num_edges, first, cells_per_unit, num_cells, index, AT_START: tl.constexpr):
    """Number of edges in cells before each cell; those AT_START of the cell too, below which no logit is in it."""
    low = tl.zeros_like(index)
    high = low + num_edges
    left = num_edges
    while left > 0:
        middle = (low + high) // 2
        edge = tl.load(edges + middle, mask=low < high, other=0)
        nearest = -next_above(-edge) if AT_START else edge
        below = _cell(nearest, first, cells_per_unit, num_cells) < index
        if AT_START:
            below = below | (edge == first)  # what is below the first edge is in no bin that counts
        below = below & (low < high)
        high = tl.where(below, high, tl.minimum(middle, high))
        low = tl.where(below, middle + 1, low)
        left //= 2
    return low


@triton.jit(do_not_specialize=["num_edges", "num_cells", "exponent"])
def _cells(edges, num_edges, ranges, cells_per_unit, num_cells, exponent, ENTRIES: tl.constexpr):
    """What `build_table` returns.

    The exponent, with its bias, of the power of two that cuts a span of 2**-126 into all cells.
    """
    first = tl.load(edges)
    span = (tl.load(edges + num_edges - 1) - first).to(tl.float32)  # below 2 to its exponent, without bias, plus 1
    exponent -= (span.to(tl.int32, bitcast=True) >> 23) & 255
    scale = (tl.minimum(exponent, 254) << 23).to(tl.float32, bitcast=True)
    index = tl.program_id(0) * ENTRIES + tl.arange(0, ENTRIES)
    low = _edges_before(edges, num_edges, first, scale, num_cells, index, True)
    high = _edges_before(edges, num_edges, first, scale, num_cells, index + 1, False)
    tl.store(ranges + index, low.to(tl.int64) | (high.to(tl.int64) << 32), mask=index < num_cells)
    tl.store(cells_per_unit + index, scale, mask=index == 0)


@triton.jit
def find_bin(logit, relevant, edges, ranges, cells_per_unit, num_cells):
    """Number of edges at or below each relevant logit: its cell says between which to search, mostly none.

    Logits of half the digits lie on few places, with many edges on one: those begin a cell, and need no search.
    """
    between = tl.load(ranges + _cell(logit, tl.load(edges), tl.load(cells_per_unit), num_cells))
    low, high = between.to(tl.int32), (between >> 32).to(tl.int32)
    left = tl.max(tl.where(relevant, high - low, 0))
    while left > 0:
        middle = (low + high) // 2
        below = (tl.load(edges + middle, mask=low < high, other=0) <= logit) & (low < high)
        high = tl.where(below, high, tl.minimum(middle, high))
        low = tl.where(below, middle + 1, low)
        left //= 2
    return low
