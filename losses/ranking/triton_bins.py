"""The bins between the breakpoints of the positives, made by a few Triton kernels instead of a hundred operators.

What is as long as the positives takes a GPU no time, but each operator on it a launch, and a ranking loss waits for
those. So the positives are sorted by counting, which takes pairs of positives but one launch; then all breakpoints are
merged at once, each searching for its place.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..triton_support import ceil_div
from .positions import REACH
from .triton_cells import build_table, next_above
from .triton_order import is_far, sort_and_place

ENTRIES = 128  # of a program


class TritonBins:
    """See `LogitBins`, which has the same bins.

    Args:
        positive_logits: (P,) float64, finite, P > 0, on a GPU.
        weights: (P,) float64, a number for each.
        delta: half-width of the smoothed step, > 0.
        dtype: type to locate logits in, float32 or float64.
        among: (2, 2, 2P + 1) float64 zeros, to which it adds two histograms of the positives, of their number and of
            their weights: sum of these in each bin, and of these times logits relative to the bin's origin.

    Attributes, K = 2P:
        positions, breakpoints, rests, edges, origins: as of `LogitBins`.
        ordered, order: (P,) float64 and int32, the positives' logits ascending, and their indices in that order.
        positions_ascending: (P,) float64, the positions in that order.
        places: (2, P) int32, places of p - delta and p + delta among the breakpoints, in that order of p.
        owners: (K,) int32, the place in that order of the positive that a breakpoint is of, plus P for p + delta.
        ends: (P,) int32, how many positives have the same or a smaller logit, in that order.
        ranges, cells_per_unit: see `build_table`.
    """

    def __init__(
        self, positive_logits: Tensor, weights: Tensor, delta: float, dtype: torch.dtype, among: Tensor
    ) -> None:
        size = len(positive_logits)
        self.delta = float(delta)
        self.positions = torch.empty_like(positive_logits)
        self.breakpoints, self.rests = positive_logits.new_empty(2, 2 * size)
        self.origins = positive_logits.new_empty(2 * size + 1)
        self.edges = positive_logits.new_empty(2 * size, dtype=dtype)
        self.places = torch.empty(2, size, dtype=torch.int32, device=positive_logits.device)
        self.owners, self.ends = torch.empty_like(self.places).view(-1), torch.empty_like(self.places[0])
        with torch.cuda.device_of(positive_logits):
            self.ordered, self.order, self.positions_ascending = sort_and_place(positive_logits, self.delta)
            _breakpoints[ceil_div(size, ENTRIES),](
                *(self.ordered, self.order, self.positions_ascending, weights, size, self.delta, REACH),
                *(self.positions, self.breakpoints, self.rests, self.origins, self.edges),
                *(self.places, self.owners, self.ends, among, ENTRIES),
            )
            self.ranges, self.cells_per_unit = build_table(self.edges)


@triton.jit
def _count_below(numbers, size, shift, bound, OR_EQUAL: tl.constexpr):
    """How many of the ascending numbers plus shift are below each bound, or equal to it."""
    low = tl.zeros_like(bound).to(tl.int32)
    high = low + size
    left = size
    while left > 0:
        middle = (low + high) // 2
        number = tl.load(numbers + middle, mask=low < high, other=float("inf")) + shift
        below = (number <= bound) if OR_EQUAL else (number < bound)
        below = below & (low < high)
        high = tl.where(below, high, tl.minimum(middle, high))
        low = tl.where(below, middle + 1, low)
        left //= 2
    return low


@triton.jit
def _store_breakpoint(place, valid, breakpoint, rest, origin, owner, breakpoints, rests, origins, edges, owners):
    """A breakpoint is origin + rest; its edge is rounded up, so that no logit changes sides."""
    edge = (origin + rest).to(edges.dtype.element_ty)
    edge = tl.where(edge.to(tl.float64) - origin < rest, next_above(edge), edge)
    tl.store(breakpoints + place, breakpoint, mask=valid)
    tl.store(rests + place, rest, mask=valid)
    tl.store(origins + place + 1, origin, mask=valid)
    tl.store(edges + place, edge, mask=valid)
    tl.store(owners + place, owner, mask=valid)


@triton.jit(do_not_specialize=["size"])
def _breakpoints(
    ordered,
    order,
    positions_ascending,
    weights,
    size,
    delta: tl.float64,
    REACH: tl.constexpr,
    positions,
    breakpoints,
    rests,
    origins,
    edges,
    places,
    owners,
    ends,
    among,
    ENTRIES: tl.constexpr,
):
    """Merges all p - delta with all p + delta, and adds the positives to their histograms."""
    index = tl.program_id(0) * ENTRIES + tl.arange(0, ENTRIES)
    valid = index < size
    logit = tl.load(ordered + index, mask=valid, other=0)
    own = tl.load(order + index, mask=valid, other=0)
    position = tl.load(positions_ascending + index, mask=valid, other=0)
    tl.store(positions + own, position, mask=valid)
    tl.store(ends + index, _count_below(ordered, size, 0.0, logit, True), mask=valid)
    far = is_far(ordered, size, REACH * delta)
    origin = tl.where(far, logit, 0.0)

    # Of equal breakpoints those of p - delta come first.
    lower, upper = position - delta, position + delta
    place = index + _count_below(positions_ascending, size, delta, lower, False)
    tl.store(places + index, place, mask=valid)
    _store_breakpoint(
        *(place, valid, lower, logit - origin - delta, origin, index, breakpoints, rests, origins, edges, owners)
    )
    place = index + _count_below(positions_ascending, size, -delta, upper, True)
    tl.store(places + size + index, place, mask=valid)
    _store_breakpoint(
        *(place, valid, upper, logit - origin + delta, origin, size + index, breakpoints, rests, origins, edges, owners)
    )
    tl.store(origins + index, 0.0, mask=index == 0)

    # The bin of the positive itself has the origin of the last breakpoint at or below it: some p - delta, its own at
    # least, or the last p + delta if that is not smaller.
    lowers = _count_below(positions_ascending, size, -delta, position, True)
    uppers = _count_below(positions_ascending, size, delta, position, True)
    last_upper = tl.maximum(uppers - 1, 0)
    at_lower = tl.load(positions_ascending + lowers - 1, mask=valid, other=0) - delta
    at_upper = tl.load(positions_ascending + last_upper, mask=valid, other=0) + delta
    nearest = tl.where((uppers > 0) & (at_upper >= at_lower), last_upper, lowers - 1)
    relative = logit - tl.where(far, tl.load(ordered + nearest, mask=valid, other=0), 0.0)
    weight = tl.load(weights + own, mask=valid, other=0)
    number = among + lowers + uppers
    num_bins = 2 * size + 1
    tl.atomic_add(number, tl.full([ENTRIES], 1.0, tl.float64), mask=valid, sem="relaxed")
    tl.atomic_add(number + num_bins, relative, mask=valid, sem="relaxed")
    tl.atomic_add(number + 2 * num_bins, weight, mask=valid, sem="relaxed")
    tl.atomic_add(number + 3 * num_bins, weight * relative, mask=valid, sem="relaxed")
