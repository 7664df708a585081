"""Sums over the bins of `TritonBins`, for the positives and for the tables of the negatives: `LogitBins` explains them.

Breakpoints are scanned by a single program, in parts; what needs no order is left to many.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..triton_support import ceil_div
from .positions import FAR_APART
from .triton_bins import ENTRIES, TritonBins
from .triton_order import SCANNED


def rank_positives(bins: TritonBins, negatives: Tensor, among: Tensor, weights: Tensor) -> Tensor:
    """N_FP, rank+, rank, and the sum of weights[k] * H(x_ik) over the other positives k: (4, P) float64.

    Args:
        negatives: (2, 2P + 1) float64, their histogram.
        among: (2, 2, 2P + 1) float64, those of the positives, see `TritonBins`.
        weights: (P,) float64.
    """
    size = len(weights)
    hinges, ranks = weights.new_empty(3, 2 * size), weights.new_empty(4, size)
    with torch.cuda.device_of(weights):
        _hinges[3,](negatives, among, bins.breakpoints, bins.rests, hinges, 2 * size, bins.delta, FAR_APART, SCANNED)
        _ranks[ceil_div(size, ENTRIES),](hinges, bins.order, bins.places, weights, size, bins.delta, ranks, ENTRIES)
    return ranks


def gradient_tables(bins: TritonBins, errors: Tensor, factor: Tensor, false_positives: Tensor) -> tuple[Tensor, Tensor]:
    """Anchors (2P + 1,), and slope and value of each bin (2P + 1, 2), as of `LogitBins.tables`, of the weights
    factor * errors / N_FP / P.

    Args:
        errors, false_positives: (P,) float64. factor: scalar, float.
    """
    size = len(errors)
    anchors, lines = bins.edges.new_empty(2 * size + 1), bins.edges.new_empty(2 * size + 1, 2)
    with torch.cuda.device_of(errors):
        _tables[1,](
            *(errors, factor, false_positives, bins.order, bins.owners, bins.breakpoints, bins.rests, bins.origins),
            *(bins.edges, anchors, lines, size, bins.delta, FAR_APART, SCANNED),
        )
    return anchors, lines


@triton.jit
def _gap(breakpoints, place, num_edges, delta, FAR_APART: tl.constexpr):
    """Distance of each breakpoint to the next, of the last as in `LogitBins`."""
    inside = place < num_edges
    gap = tl.load(breakpoints + place + 1, mask=place + 1 < num_edges, other=0)
    gap -= tl.load(breakpoints + place, mask=inside, other=0)
    return tl.where(place + 1 < num_edges, gap, FAR_APART * delta)


@triton.jit(do_not_specialize=["num_edges"])
def _hinges(
    negatives,
    among,
    breakpoints,
    rests,
    hinges,
    num_edges,
    delta: tl.float64,
    FAR_APART: tl.constexpr,
    SCANNED: tl.constexpr,
):
    """For each breakpoint the sum of what lies right of it times its distance, of one of three histograms a program."""
    which = tl.program_id(0)
    num_bins = num_edges + 1
    among += (which - 1) * 2 * num_bins
    beyond_part = tl.full((), 0.0, tl.float64)  # number right of the part
    hinge_of_part = tl.full((), 0.0, tl.float64)
    start = 0
    while start < num_edges:
        place = num_edges - 1 - start - tl.arange(0, SCANNED)  # from the right
        valid = place >= 0
        count = tl.load(negatives + place + 1, mask=valid & (which == 0), other=0)
        count += tl.load(among + place + 1, mask=valid & (which > 0), other=0)
        total = tl.load(negatives + num_bins + place + 1, mask=valid & (which == 0), other=0)
        total += tl.load(among + num_bins + place + 1, mask=valid & (which > 0), other=0)
        gap = _gap(breakpoints, tl.maximum(place, 0), num_edges, delta, FAR_APART)
        beyond = beyond_part + (tl.cumsum(count, 0) - count)
        inside = total - count * tl.load(rests + place, mask=valid, other=0)
        inside = tl.where(gap > FAR_APART / 2 * delta, tl.minimum(inside, count * gap), inside)
        steps = tl.where(valid, inside + beyond * gap, 0.0)
        tl.store(hinges + which * num_edges + place, hinge_of_part + tl.cumsum(steps, 0), mask=valid)
        beyond_part += tl.sum(count)
        hinge_of_part += tl.sum(steps)
        start += SCANNED


@triton.jit(do_not_specialize=["size"])
def _ranks(hinges, order, places, weights, size, delta: tl.float64, ranks, ENTRIES: tl.constexpr):
    index = tl.program_id(0) * ENTRIES + tl.arange(0, ENTRIES)
    valid = index < size
    own = tl.load(order + index, mask=valid, other=0)
    at_lower = hinges + tl.load(places + index, mask=valid, other=0)
    at_upper = hinges + tl.load(places + size + index, mask=valid, other=0)
    false_positives = (tl.load(at_lower, mask=valid) - tl.load(at_upper, mask=valid)) / (2 * delta)
    false_positives = tl.where(false_positives < 0, 0.0, false_positives)  # rounding may leave less; NaN stays
    at_lower += 2 * size
    at_upper += 2 * size
    among = (tl.load(at_lower, mask=valid) - tl.load(at_upper, mask=valid)) / (2 * delta)
    positive_rank = among + 0.5  # 1, and not the H(0) = 1/2 of each with itself
    at_lower += 2 * size
    at_upper += 2 * size
    above = (tl.load(at_lower, mask=valid) - tl.load(at_upper, mask=valid)) / (2 * delta)
    weight_above = above - tl.load(weights + own, mask=valid, other=0) / 2
    tl.store(ranks + own, false_positives, mask=valid)
    tl.store(ranks + size + own, positive_rank, mask=valid)
    tl.store(ranks + 2 * size + own, positive_rank + false_positives, mask=valid)
    tl.store(ranks + 3 * size + own, weight_above, mask=valid)


@triton.jit(do_not_specialize=["size"])
def _tables(
    errors,
    factor,
    false_positives,
    order,
    owners,
    breakpoints,
    rests,
    origins,
    edges,
    anchors,
    lines,
    size,
    delta: tl.float64,
    FAR_APART: tl.constexpr,
    SCANNED: tl.constexpr,
):
    """Anchor, slope and value of each bin, ascending. One program."""
    num_edges = 2 * size
    scale = tl.load(factor).to(tl.float64) / size.to(tl.float64)
    slope_before = tl.full((), 0.0, tl.float64)
    value_before = tl.full((), 0.0, tl.float64)
    start = 0
    while start < num_edges:
        place = start + tl.arange(0, SCANNED)
        valid = place < num_edges
        owner = tl.load(owners + place, mask=valid, other=0)
        own = tl.load(order + tl.where(owner < size, owner, owner - size), mask=valid, other=0)
        number = tl.load(false_positives + own, mask=valid, other=0)
        # Where N_FP is 0, every H of a negative is as well.
        weight = tl.load(errors + own, mask=valid, other=0) * scale / tl.where(number > 0, number, 1.0)
        weight = tl.where(valid & (number > 0), weight, 0.0)
        change = tl.where(owner < size, weight, -weight) / (2 * delta)
        gap = _gap(breakpoints, place, num_edges, delta, FAR_APART)
        wide = gap > FAR_APART / 2 * delta
        slope = tl.where(wide, 0.0, slope_before + tl.cumsum(change, 0))
        rise = tl.where(valid, slope * gap, 0.0)
        value = value_before + (tl.cumsum(rise, 0) - rise)
        # Distances are taken from the edge, a number of the logits' type.
        anchor = tl.load(edges + place, mask=valid, other=0).to(tl.float64)
        origin = tl.load(origins + place + 1, mask=valid, other=0)
        value += slope * (anchor - origin - tl.load(rests + place, mask=valid, other=0))
        tl.store(anchors + place + 1, tl.where(wide, 0.0, anchor), mask=valid)
        tl.store(lines + 2 * place + 2, slope, mask=valid)
        tl.store(lines + 2 * place + 3, value, mask=valid)
        slope_before += tl.sum(change)
        value_before += tl.sum(rise)
        start += SCANNED
    nothing = tl.zeros([2], edges.dtype.element_ty)
    tl.store(anchors, tl.max(nothing))
    tl.store(lines + tl.arange(0, 2), nothing)
