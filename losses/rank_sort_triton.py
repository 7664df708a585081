"""Rank & Sort Loss of the ranked positives as Triton kernels; `rs_loss` explains the terms.

Positives are compared in pairs: up to some thousands that takes less time than the launches of the sums that need none.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from .ranking import Ranking
from .ranking.triton_entries import write_positives
from .ranking.triton_order import SCANNED
from .triton_support import ceil_div

MAX_PAIRED = 1 << 14  # positives
ROWS, COLUMNS = 32, 64  # pairs that a program compares at a time


class Parts(NamedTuple):
    """Both parts, scalars of the type of the loss, and what drives their gradients, (P,) float64.

    ranking_errors: of the positives. sorting_errors: what lifts a positive, less what pushes it down.
    """

    ranking: Tensor
    ranking_errors: Tensor
    sorting: Tensor
    sorting_errors: Tensor


def rank_sort_parts(ranking: Ranking, delta: float, min_missorted: float) -> Parts:
    """Of P > 0 positives of all processes, MAX_PAIRED at most, with their IoUs as weights."""
    size = ranking.num_positives
    grid = (ceil_div(size, ROWS),)
    ranking_errors, terms, lift, share, sorting_errors = (torch.empty_like(ranking.rank) for _ in range(5))
    values = [lift.new_empty((), dtype=ranking.compute_dtype) for _ in range(2)]
    with torch.cuda.device_of(lift):
        _missorted[grid](
            *(ranking.positions, ranking.weights, ranking.false_positives, ranking.positive_rank),
            *(ranking.weight_above, size, float(delta), min_missorted),
            *(ranking_errors, terms, lift, share, ROWS, COLUMNS),
        )
        _pushed[grid](
            *(ranking.positions, ranking.weights, lift, share, size, float(delta), sorting_errors, ROWS, COLUMNS)
        )
        _means[1,](ranking_errors, terms, size, *values, SCANNED)
    return Parts(values[0], ranking_errors, values[1], sorting_errors)


class Sorting(torch.autograd.Function):
    """Gives the sorting part its gradient, which the positives alone have."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, value: tuple[Tensor], errors: Tensor, ranking: Ranking) -> Tensor:
        ctx.save_for_backward(logits, errors)
        ctx.ranking = ranking
        return value[0]  # out of a tuple it is no input, of which a result must be a copy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None, None]:
        logits, errors = ctx.saved_tensors
        gradient = torch.zeros_like(logits, memory_format=torch.contiguous_format)
        ranking = ctx.ranking
        write_positives(errors[ranking.own], ranking.own_entries, grad_output, ranking.num_positives, gradient)
        return gradient, None, None, None


@triton.jit
def _step(difference, slope):
    """H, smoothed over the 1 / slope around 0; a product, as divisions of float64 take many times as long."""
    return tl.minimum(tl.maximum(difference * slope + 0.5, 0.0), 1.0)


@triton.jit(do_not_specialize=["size"])
def _missorted(
    positions,
    ious,
    false_positives,
    positive_ranks,
    weight_above,
    size,
    delta: tl.float64,
    MIN_MISSORTED: tl.constexpr,
    ranking_errors,
    terms,
    lift,
    share,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Errors of the positives, what lifts them, and their share in what pushes each missorted one down."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    valid = row < size
    position = tl.load(positions + row, mask=valid, other=0)
    iou = tl.load(ious + row, mask=valid, other=0)
    slope = 1 / (2 * delta)
    missorted = tl.zeros([ROWS], tl.float64)
    missorted_badness = tl.zeros([ROWS], tl.float64)
    start = 0
    while start < size:
        column = start + tl.arange(0, COLUMNS)
        other = tl.load(positions + column, mask=column < size, other=0)
        other_iou = tl.load(ious + column, mask=column < size, other=0)[None, :]
        worse = (other_iou < iou[:, None]) & (column < size)[None, :]
        step = tl.where(worse, _step(other[None, :] - position[:, None], slope), 0.0)
        missorted += tl.sum(step, 1)
        missorted_badness += tl.sum(tl.where(worse, step * (1 - other_iou), 0.0), 1)
        start += COLUMNS

    number = tl.load(false_positives + row, mask=valid, other=0)
    positive_rank = tl.load(positive_ranks + row, mask=valid, other=1)
    above = positive_rank - 1 - tl.load(weight_above + row, mask=valid, other=0) + (1 - iou) / 2
    positive_rank -= 0.5
    tl.store(ranking_errors + row, number / (positive_rank + number), mask=valid)
    error = above / positive_rank - (above - missorted_badness) / (positive_rank - missorted)
    tl.store(terms + row, error + 0 * number, mask=valid)
    driven = missorted > MIN_MISSORTED
    tl.store(lift + row, tl.where(driven, error, 0.0), mask=valid)
    tl.store(share + row, tl.where(driven, error / tl.where(driven, missorted, 1.0), 0.0), mask=valid)


@triton.jit(do_not_specialize=["size"])
def _pushed(
    positions,
    ious,
    lift,
    share,
    size,
    delta: tl.float64,
    sorting_errors,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    valid = row < size
    position = tl.load(positions + row, mask=valid, other=0)
    iou = tl.load(ious + row, mask=valid, other=0)
    slope = 1 / (2 * delta)
    push = tl.zeros([ROWS], tl.float64)
    start = 0
    while start < size:
        column = start + tl.arange(0, COLUMNS)
        other = tl.load(positions + column, mask=column < size, other=0)
        other_iou = tl.load(ious + column, mask=column < size, other=0)
        part = tl.load(share + column, mask=column < size, other=0)[None, :]
        step = _step(position[:, None] - other[None, :], slope)
        push += tl.sum(tl.where(other_iou[None, :] > iou[:, None], part * step, 0.0), 1)
        start += COLUMNS
    tl.store(sorting_errors + row, tl.load(lift + row, mask=valid, other=0) - push, mask=valid)


@triton.jit(do_not_specialize=["size"])
def _means(ranking_errors, terms, size, ranking, sorting, SCANNED: tl.constexpr):
    on_ranking = tl.full((), 0.0, tl.float64)
    on_sorting = tl.full((), 0.0, tl.float64)
    start = 0
    while start < size:
        index = start + tl.arange(0, SCANNED)
        on_ranking += tl.sum(tl.load(ranking_errors + index, mask=index < size, other=0))
        on_sorting += tl.sum(tl.load(terms + index, mask=index < size, other=0))
        start += SCANNED
    tl.store(ranking, (on_ranking / size.to(tl.float64)).to(ranking.dtype.element_ty))
    tl.store(sorting, (on_sorting / size.to(tl.float64)).to(sorting.dtype.element_ty))
