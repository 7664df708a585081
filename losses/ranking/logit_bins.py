"""Exact sums of the smoothed step H between positives and negatives, without comparing pairs.

H(x) = (relu(x + delta) - relu(x - delta)) / (2 delta) bends only at x = -delta and x = delta. So every sum of H that
the losses need, as a function of a negative's logit, bends only at the 2P breakpoints p_i - delta and p_i + delta.
They cut the axis of the logits into 2P + 1 bins, and inside a bin every sum is linear. A positive therefore needs only
the count and the sum of the negatives in each bin, and a negative only the value and the slope of its own bin.

The results are exact for logits of any size. Sums are taken relative to an origin of each bin, which is 0 unless a
positive is far from 0; and a negative in a bin wider than any step counts as if it were near, as H is the same there.
docs/design/exactness.md has the bounds.
"""

import math
import sys
from collections.abc import Iterator

import torch
from torch import Tensor

from ..entries import true_indices
from .positions import FAR_APART, place
from .shared_out import SharedOut

# Logits worked on at a time, so that on a CPU the temporaries stay in the cache.
CHUNK_CPU, CHUNK_GPU = 1 << 18, 1 << 20
# Added to the cells of positives and ignored entries, which moves them into bin 0, below every breakpoint.
OUT_OF_SIGHT = -(2.0**24)


class LogitBins:
    """The bins between the breakpoints of the positives' logits.

    Args:
        positive_logits: (P,) float64, finite, P > 0.
        delta: half-width of the smoothed step, > 0.
        dtype: type to locate logits in, float32 or float64.

    Attributes, K = 2P; bin k + 1 lies between the sorted breakpoints k and k + 1:
        positions: (P,) float64, the positives on the axis of the breakpoints; see `place`.
        ordered, ascending: (P,) float64 and int64, the positives' logits ascending, and their indices in that order.
        breakpoints: (K,) float64, ascending; gaps: (K,) float64, the distance of each to the next.
        origins: (K + 1,) float64, of the bins. rests: (K,) float64, the breakpoints relative to their origins.
        wide: (K,) bool, whether the bin is too wide for any step to reach from one of its ends to the other.
        edges: (K,) dtype, ascending: the breakpoints as numbers of that type; a logit is below an edge exactly if it
            is below the breakpoint.
    """

    def __init__(self, positive_logits: Tensor, delta: float, dtype: torch.dtype) -> None:
        self.positive_logits, self.delta, self.dtype = positive_logits, delta, dtype
        # A bin is counted in several slots, taken in turn: adding to one place in memory over and over again would
        # wait for the previous addition each time. With many bins that is rare, and the slots would leave the cache.
        self.lanes = 8 if len(positive_logits) <= 2048 else 2  # a power of two
        self.positions, origins, self.ordered, self.ascending = place(positive_logits, delta)
        self.breakpoints, self.order = _both_ends(self.positions, delta).sort()
        self.gaps = torch.diff(self.breakpoints, append=self.breakpoints[-1:] + FAR_APART * delta)
        self.wide = self.gaps > FAR_APART / 2 * delta
        # A breakpoint is its origin plus a rest of the size of delta, so that p ± delta loses no digit however large p.
        self.rests = _both_ends(positive_logits - origins, delta)[self.order]
        origins = origins.repeat(2)[self.order]
        self.origins = torch.nn.functional.pad(origins, (1, 0))
        # Rounded up: to the nearest, logits between an edge and its breakpoint would be on the wrong side.
        edges = (origins + self.rests).to(dtype)
        above = torch.nextafter(edges, torch.full_like(edges, torch.inf))
        self.edges = torch.where(edges.double() - origins < self.rests, above, edges)
        self.slot_of_cell = self._build_table() if positive_logits.device.type == "cpu" else None

    def locate(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Slots (M,) int32 of the logits; slot // lanes is the bin. Where the target is not 0, the bin is 0."""
        slots = torch.empty(logits.shape, dtype=torch.int32, device=logits.device)
        cells = torch.empty(_chunk(logits), dtype=self.dtype, device=logits.device)
        indices = torch.empty_like(cells, dtype=torch.int32)
        lanes = torch.arange(len(cells), dtype=torch.int32, device=logits.device) & (self.lanes - 1)
        shared = SharedOut(len(cells), logits.device)
        all_decided = True
        whole = logits, targets, slots
        for logit, target, slot, cell, index, lane in _chunks(whole, scratch=(cells, indices, lanes)):
            if self.slot_of_cell is None:  # on a GPU, which building a table would wait for
                seen = torch.where(target == 0, logit, -torch.inf).to(self.dtype)
                torch.searchsorted(self.edges, seen, right=True, out_int32=True, out=slot)
                slot.mul_(self.lanes)
            else:
                target = target.to(self.dtype)
                self._cell(logit.to(self.dtype), out=cell)
                cell.addcmul_(target, target, value=OUT_OF_SIGHT)  # squared: the same for 1 and -1
                index.copy_(cell).clamp_(min=0)  # NaN became some integer
                shared.look_up(self.slot_of_cell, shared.index(index), out=slot)
                all_decided = all_decided and slot.min().item() >= 0
            slot.add_(lane)
        # An edge inside a cell leaves its logits undecided. They are few, of all chunks: search for their bins.
        if not all_decided:
            undecided = true_indices(slots.signbit())  # which is faster than a comparison
            bins = torch.searchsorted(self.edges, logits[undecided].to(self.dtype), right=True, out_int32=True)
            slots[undecided] = bins * (targets[undecided] == 0) * self.lanes
        return slots

    def histogram(self, logits: Tensor, slots: Tensor) -> Tensor:
        """(2, 2P + 1) float64: number of the logits (M,) in each bin, and their sum relative to its origin."""
        # Float32 logits near an origin add up without rounding, so the origin can be subtracted from their sum. Float64
        # logits have no digits to spare: subtract it from each.
        origins = self.origins.repeat_interleave(self.lanes) if self.dtype == torch.float64 else None
        # One complex addition counts a logit (real part) and sums it (imaginary part), for one walk through memory.
        entries = torch.ones(_chunk(logits), dtype=torch.complex128, device=logits.device)
        values = torch.view_as_real(entries)[:, 1]
        shared = SharedOut(len(entries), logits.device)
        totals = shared.tables(entries, (len(self.edges) + 1) * self.lanes, len(logits))
        for logit, slot, entry, value in _chunks((logits, slots), scratch=(entries, values)):
            value.copy_(logit)
            if origins is not None:
                value -= origins[slot]
            shared.add(totals, slot, entry)
        histogram = torch.view_as_real(totals.sum(0)).view(-1, self.lanes, 2).sum(1).T.contiguous()
        if origins is None:
            histogram[1].addcmul_(histogram[0], self.origins, value=-1)
        return histogram

    def hits(self, histogram: Tensor) -> Tensor:
        """Sum of H(s_j - p_i) over the entries j of each histogram, for each positive i: (n, P) from (n, 2, 2P + 1)."""
        # First the hinges, the sums of relu(s_j - b) over the entries j, for every breakpoint b. From b to the next
        # breakpoint an entry between them adds its distance to b, and one beyond the next adds the whole gap.
        count, total = histogram[..., 1:].unbind(1)  # between each breakpoint and the next
        beyond = count.flip(1).cumsum(1).flip(1) - count  # right of the next
        inside = total - count * self.rests
        inside = torch.minimum(inside, torch.where(self.wide, count * self.gaps, torch.inf))
        # A hinge is what is added from its breakpoint to the last. All terms are >= 0, so nothing cancels.
        steps = inside + beyond * self.gaps
        hinges = torch.empty_like(steps)
        hinges[:, self.order] = steps.flip(1).cumsum(1).flip(1)  # back in the order of the positives
        at_lower, at_upper = hinges.chunk(2, 1)
        return (at_lower - at_upper) / (2 * self.delta)

    def hits_of_positives(self, negatives: Tensor, weights: Tensor) -> Tensor:
        """Three sums of H(x_ij) for each positive i, (3, P): over the negatives j, over the other positives, and over
        these times their weights (P,). `negatives` is a histogram, (2, 2P + 1)."""
        # Positives rank among themselves by the same bins: two more histograms, of their counts and of their weights.
        weights = torch.stack([torch.ones_like(weights), weights])  # (2, P)
        positives = negatives.new_zeros(4, negatives.shape[1])
        bins = torch.searchsorted(self.breakpoints, self.positions, right=True)
        relative = self.positive_logits - self.origins[bins]
        positives.index_add_(1, bins, torch.stack([weights, weights * relative], 1).flatten(0, 1))
        hits = self.hits(torch.cat([negatives[None], positives.view(2, 2, -1)]))
        hits[0].clamp_(min=0)  # a difference of two sums, which rounding may leave below 0
        hits[1:] -= weights / 2  # each positive met itself, with H(0) = 1/2
        return hits

    def weighted_steps(self, weights: Tensor, logits: Tensor, slots: Tensor) -> Tensor:
        """Sum over the positives i of weights[i] * H(s - p_i), for each logit s; 0 in bin 0.

        Args:
            weights: (P,) float64, >= 0.
            logits: (M,) float.
            slots: (M,) from `locate`, overwritten: the result takes its memory where that fits.
        """
        tables = self.tables(weights).repeat_interleave(self.lanes, dim=1)
        # slope and value side by side, as one number of twice the size: one look-up for both
        pair = torch.float64 if tables.dtype == torch.float32 else torch.complex128
        anchors, lines = tables[0], tables[1:].T.contiguous().view(pair).squeeze(1)
        result = slots.view(torch.float32) if logits.dtype == torch.float32 else torch.empty_like(logits)
        size = _chunk(logits)
        nearest, found = anchors.new_empty(size), lines.new_empty(size)
        slopes, values = found.view(anchors.dtype).view(size, 2).unbind(1)
        shared = SharedOut(size, logits.device)
        whole, scratch = (logits, slots, result), (nearest, found, slopes, values)
        for logit, slot, out, anchor, line, slope, value in _chunks(whole, scratch):
            index = shared.index(slot)
            shared.look_up(anchors, index, out=anchor)
            shared.look_up(lines, index, out=line)
            torch.addcmul(value, slope, torch.sub(logit, anchor, out=anchor), out=out)
        return result

    def tables(self, weights: Tensor) -> Tensor:
        """Tables from which a negative reads its sum over the positives i of weights[i] * H(s - p_i).

        In each bin the sum is value + slope * (s - anchor). Both terms are >= 0, so it is as exact as its dtype.

        Args:
            weights: (P,) float64, >= 0.
        Returns:
            (3, 2P + 1) in the type to locate logits in, rows anchor, slope and value. All 0 in bin 0.
        """
        # H begins to rise at p - delta and stops at p + delta: these are the two changes of the slope.
        slopes = (torch.cat([weights, -weights])[self.order] / (2 * self.delta)).cumsum(0)
        slopes = torch.where(self.wide, 0, slopes)  # what rounding left would grow with the distance of a far logit
        rises = slopes[:-1] * self.gaps[:-1]
        values = torch.cat([rises.new_zeros(1), rises.cumsum(0)])
        # Distances are taken from the edge, a number of the logits' type, so move the values there.
        anchors = self.edges.double()
        values = values + slopes * (anchors - self.origins[1:] - self.rests)
        anchors = torch.where(self.wide, 0, anchors)  # no difference of two logits overflows
        return torch.nn.functional.pad(torch.stack([anchors, slopes, values]), (1, 0)).to(self.dtype)

    def _build_table(self) -> Tensor:
        """First slot of the bin of every cell; negative where an edge lies inside the cell.

        Cells are equal cuts of the axis, far more than bins: a multiplication finds a logit's cell, and the cell nearly
        always its bin. Rounding does no harm, because logits and edges go through the same monotone map. Cells begin at
        multiples of a power of two, where many logits of a coarse type such as bfloat16 lie too, with the edges that
        they make. An edge at the beginning of a cell leaves nothing undecided: what is below it is in another cell.
        """
        num_cells = 1 << max(16, min(19, (128 * len(self.edges)).bit_length()))
        edges = self.edges[self.edges < torch.inf]  # the others are above every finite logit
        first, last = float(edges[0]), float(edges[-1])
        # A cell must be wide enough that logits of this size can tell it from the next, and finite.
        span = min(max(1e-30, last - first, 2.0**-24 * max(-first, last)), sys.float_info.max)
        self.cells_per_unit = 2.0 ** round(math.log2(num_cells / span))
        self.origin = float((edges[0] * self.cells_per_unit).floor() - 2)
        self.last_cell = math.inf
        cells, before = (
            self._cell(logits, out=torch.empty_like(logits)).int()
            for logits in (edges, torch.nextafter(edges, torch.full_like(edges, -torch.inf)))
        )
        self.last_cell = int(cells[-1]) + 1
        table = cells.new_zeros(self.last_cell + 1)
        table.index_add_(0, cells, torch.full_like(cells, self.lanes)).cumsum_(0)
        inside = (cells == before) | (cells == 0)  # in cell 0 are the logits out of sight
        return table.index_fill_(0, cells[inside].long(), -self.lanes)

    def _cell(self, logits: Tensor, out: Tensor) -> Tensor:
        """Cell of each logit (n,), a whole number from 0 to last_cell, or NaN; written to `out`, of their type."""
        torch.mul(logits, self.cells_per_unit, out=out)
        return out.floor_().sub_(self.origin).clamp_(0, self.last_cell)


def _both_ends(centres: Tensor, delta: float) -> Tensor:
    return torch.cat([centres - delta, centres + delta])


def _chunk(logits: Tensor) -> int:
    return min(len(logits), CHUNK_CPU if logits.device.type == "cpu" else CHUNK_GPU)


def _chunks(tensors: tuple[Tensor, ...], scratch: tuple[Tensor, ...]) -> Iterator[tuple[Tensor, ...]]:
    """The tensors, equally long, chunk by chunk, each chunk beside as much of the scratch, which is as long as one."""
    step = len(scratch[0])
    for parts in zip(*(tensor.split(step) for tensor in tensors), strict=True) if step else ():
        if len(parts[0]) < step:  # a view costs as much as an operation on a thousand entries: cut only what must be
            scratch = tuple(tensor[: len(parts[0])] for tensor in scratch)
        yield *parts, *scratch
