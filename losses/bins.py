"""Exact sums of the smoothed step H between positives and negatives, without comparing pairs.

H(x) = relu(x + delta) - relu(x - delta), over 2 delta: it bends only at x = -delta and x = delta. As a function of
a negative's score, everything the losses need therefore bends only at the 2P breakpoints p_i - delta and
p_i + delta. They cut the score axis into 2P + 1 bins, inside which every sum is linear: count and sum of the
scores in each bin say all about the negatives, value and slope in each bin all about the positives.
"""

import torch
from torch import Tensor

# Scores that fall into the same bin are counted in one of so many slots: adding to one place in memory again
# and again would wait for the previous addition each time.
LANES = 8
# Elements worked on at a time; on the CPU the temporaries then stay in the cache.
CHUNK_CPU, CHUNK_GPU = 1 << 18, 1 << 24


class ScoreBins:
    """The bins between the breakpoints of P positives' scores.

    Args:
        positives: (P,) float64, finite, P > 0.
        delta: half-width of the smoothed step, > 0.
        dtype: type of the scores that will be located, float32 or float64.
    """

    def __init__(self, positives: Tensor, delta: float, dtype: torch.dtype) -> None:
        self.delta = delta
        self.breakpoints, self.order = torch.cat([positives - delta, positives + delta]).sort()
        # Rounded up, not to nearest: a score of this dtype is then below an edge exactly if it is below the breakpoint.
        nearest = self.breakpoints.to(dtype)
        above = torch.nextafter(nearest, torch.full_like(nearest, torch.inf))
        self.edges = torch.where(nearest.double() < self.breakpoints, above, nearest)
        self.num_slots = (len(self.edges) + 1) * LANES
        self.chunk = CHUNK_CPU if positives.device.type == "cpu" else CHUNK_GPU
        if positives.device.type == "cpu":
            self._build_table()

    def locate(self, scores: Tensor) -> Tensor:
        """Slots (n,) int32 of the scores (n,); slot // LANES is the bin, and bin 0 lies below every breakpoint."""
        if scores.device.type != "cpu":
            lane = torch.arange(len(scores), device=scores.device, dtype=torch.int32) % LANES
            return torch.searchsorted(self.edges, scores, right=True, out_int32=True).mul_(LANES).add_(lane)
        slots = torch.empty(scores.shape, dtype=torch.int32)
        for part, out in zip(scores.split(self.chunk), slots.split(self.chunk), strict=True):
            torch.index_select(self.slot_of_cell, 0, self._cell(part), out=out)
            if len(out) and out.min() < 0:
                undecided = (out < 0).nonzero().squeeze(1)
                found = torch.searchsorted(self.edges, part[undecided], right=True, out_int32=True)
                out[undecided] = found * LANES
        return slots

    def histogram(self, scores: Tensor, slots: Tensor) -> Tensor:
        """(2, 2P + 1) float64: number and sum of the scores in each bin."""
        total = scores.new_zeros((2, self.num_slots), dtype=torch.float64)
        one = total.new_ones(()) if len(scores) else total.new_ones(0)
        for part, slot in zip(scores.split(self.chunk), slots.split(self.chunk), strict=True):
            total[0].index_add_(0, slot, one.expand(len(part)))
            total[1].index_add_(0, slot, part.double())
        return total.view(2, -1, LANES).sum(2)

    def hits(self, histogram: Tensor) -> Tensor:
        """Sum over the histogram's entries j of H(s_j - p_i), for each positive i: (P,) float64."""
        count, total = histogram[:, 1:]  # right of each breakpoint, up to the next
        beyond = count.flip(0).cumsum(0).flip(0) - count  # right of the next breakpoint
        gaps = torch.diff(self.breakpoints, append=self.breakpoints[-1:])
        # relu(s - b) summed, breakpoint by breakpoint from the right: only terms >= 0, so small sums stay exact.
        steps = (total - count * self.breakpoints) + beyond * gaps
        hinge = torch.empty_like(steps)
        hinge[self.order] = steps.flip(0).cumsum(0).flip(0)
        at_lower, at_upper = hinge.view(2, -1)
        return (at_lower - at_upper) / (2 * self.delta)

    def weighted_steps(self, weights: Tensor) -> "PiecewiseLinear":
        """The function s -> sum over the positives i of weights[i] * H(s - p_i); weights (P,) float64."""
        bends = torch.cat([weights, -weights])[self.order] / (2 * self.delta)
        slopes = bends.cumsum(0)
        rises = slopes[:-1] * torch.diff(self.breakpoints)
        values = torch.cat([rises.new_zeros(1), rises.cumsum(0)])
        values = values + slopes * (self.edges.double() - self.breakpoints)  # at the rounded edge
        tables = torch.stack([self.edges.double(), values, slopes])
        tables = torch.nn.functional.pad(tables, (1, 0))  # bin 0: constant 0
        anchors, values, slopes = tables.to(self.edges.dtype).repeat_interleave(LANES, dim=1)
        return PiecewiseLinear(anchors, values, slopes, self.chunk)

    def _build_table(self) -> None:
        """Cuts the axis into equal cells. A cell without an edge decides its bin; the others hold -1: search.

        Exact whatever the rounding, because scores and edges go through the same monotone map.
        """
        num_cells = 1 << max(16, min(20, (64 * len(self.edges)).bit_length()))
        width = ((self.breakpoints[-1] - self.breakpoints[0]) / (num_cells - 4)).clamp_min(1e-30)
        self.origin = (self.breakpoints[0] - 2 * width).to(self.edges.dtype)
        self.cells_per_unit = (1 / width).to(self.edges.dtype)
        self.last_cell = num_cells - 1
        edges_in_cell = torch.bincount(self._cell(self.edges), minlength=num_cells)
        cells = torch.arange(num_cells, dtype=torch.int32)
        slots = edges_in_cell.cumsum(0, dtype=torch.int32) * LANES + cells % LANES
        self.slot_of_cell = slots.masked_fill_(edges_in_cell > 0, -1)

    def _cell(self, scores: Tensor) -> Tensor:
        return (scores - self.origin).mul_(self.cells_per_unit).clamp_(0, self.last_cell).to(torch.int32)


class PiecewiseLinear:
    """value + slope * (s - anchor), looked up per slot; as exact as the dtype because every term is >= 0."""

    def __init__(self, anchors: Tensor, values: Tensor, slopes: Tensor, chunk: int) -> None:
        self.anchors, self.values, self.slopes, self.chunk = anchors, values, slopes, chunk

    def __call__(self, scores: Tensor, slots: Tensor) -> Tensor:
        """The function at the scores (n,), whose slots are known."""
        result = torch.empty_like(scores)
        for part, slot, out in zip(
            scores.split(self.chunk), slots.split(self.chunk), result.split(self.chunk), strict=True
        ):
            beyond = part - self.anchors.index_select(0, slot)
            values, slopes = self.values.index_select(0, slot), self.slopes.index_select(0, slot)
            torch.addcmul(values, slopes, beyond, out=out)
        return result
