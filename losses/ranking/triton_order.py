"""The positives' logits sorted and placed, by Triton kernels."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..triton_support import ceil_div
from .positions import FAR_APART, REACH

# Up to here counting the smaller logits takes less time than the launches of a sort.
MAX_COUNTED = 1 << 14
ROWS, COLUMNS = 32, 64  # pairs that a program compares at a time
SCANNED = 1024  # entries that the only program of a scan takes at a time


def sort_and_place(logits: Tensor, delta: float) -> tuple[Tensor, Tensor, Tensor]:
    """The same as `place`, in the order of the logits.

    Args:
        logits: (P,) float64, P > 0, finite.
    Returns:
        (P,) float64, the logits ascending; (P,) int32, their indices in that order; (P,) float64, their positions,
        ascending.
    """
    size = len(logits)
    ordered, positions = torch.empty_like(logits), torch.empty_like(logits)
    order = torch.empty_like(logits, dtype=torch.int32)
    if size <= MAX_COUNTED:
        _order[ceil_div(size, ROWS),](logits, size, ordered, order, ROWS, COLUMNS)
    else:
        ordered, indices = logits.sort()
        order.copy_(indices)
    _fold[1,](ordered, positions, size, delta, REACH, FAR_APART, SCANNED)
    return ordered, order, positions


@triton.jit
def _key(number):
    """int64 in the order of the float64 numbers: most GPUs compare few of these at a time."""
    bits = number.to(tl.int64, bitcast=True)
    return bits ^ ((bits >> 63) & 0x7FFFFFFFFFFFFFFF)


@triton.jit(do_not_specialize=["size"])
def _order(logits, size, ordered, order, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Sorts: the place of a logit is the number of smaller ones, and of equal ones before it."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    logit = tl.load(logits + row, mask=row < size, other=0)
    key = _key(logit)[:, None]
    place = tl.zeros([ROWS], tl.int32)
    start = 0
    while start < size:
        column = start + tl.arange(0, COLUMNS)
        other = _key(tl.load(logits + column, mask=column < size, other=float("inf")))[None, :]
        before = (other < key) | ((other == key) & (column[None, :] < row[:, None]))
        place += tl.sum(before.to(tl.int32), 1)
        start += COLUMNS
    tl.store(ordered + place, logit, mask=row < size)
    tl.store(order + place, row, mask=row < size)


@triton.jit
def is_far(ordered, size, reach):
    """Whether any of the ordered numbers is beyond reach."""
    return tl.maximum(-tl.load(ordered), tl.load(ordered + size - 1)) > reach


@triton.jit
def _larger(a, b):
    return tl.maximum(a, b)


@triton.jit(do_not_specialize=["size"])
def _fold(
    ordered,
    positions,
    size,
    delta: tl.float64,
    REACH: tl.constexpr,
    FAR_APART: tl.constexpr,
    SCANNED: tl.constexpr,
):
    """Positions of the ordered logits, as `place` has them, ascending. One program."""
    far = is_far(ordered, size, REACH * delta)
    last = tl.full((), 0.0, tl.float64)
    start = 0
    while start < size:
        index = start + tl.arange(0, SCANNED)
        position = tl.load(ordered + index, mask=index < size, other=0)
        if far:
            before = tl.load(ordered + tl.maximum(index - 1, 0), mask=index < size, other=0)
            # Prefix sums may round downwards from one to the next; the search wants them ascending.
            sums = last + tl.cumsum(tl.minimum(position - before, FAR_APART * delta), 0)
            position = tl.maximum(tl.associative_scan(sums, 0, _larger), last)
            last = tl.max(position)
        tl.store(positions + index, position, mask=index < size)
        start += SCANNED
