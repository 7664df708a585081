"""Exact sums of the smoothed step H between positives and negatives, without comparing pairs.

H(x) = (relu(x + delta) - relu(x - delta)) / (2 delta) bends only at x = -delta and x = delta. As a function of a
negative's score, all that the losses need therefore bends only at the 2P breakpoints p_i - delta and p_i + delta.
They cut the score axis into 2P + 1 bins, inside which every sum is linear: the count and the sum of the scores in
each bin say all about the negatives, a value and a slope in each bin all about the positives.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

# Logits worked on at a time: on a CPU the temporaries stay in its cache, on a GPU they stay few.
CHUNK = {"cpu": 1 << 17, "cuda": 1 << 20}
# Added to all but the negatives, which puts them into bin 0, below every breakpoint.
OUT_OF_SIGHT = -1e30


class ScoreBins:
    """The bins between the breakpoints of the positives' scores.

    Args:
        positives: (P,) float64, finite, P > 0.
        delta: half-width of the smoothed step, > 0.
        dtype: type to locate scores in, float32 or float64.
    """

    def __init__(self, positives: Tensor, delta: float, dtype: torch.dtype) -> None:
        self.delta, self.dtype = delta, dtype
        self.chunk = CHUNK[positives.device.type]
        # A bin is counted in several slots, taken in turn: adding to one place in memory over and over again would
        # wait for the previous addition each time. With many bins that is rare, and the slots would leave the cache.
        self.lanes = 8 if len(positives) <= 2048 else 2
        self.breakpoints, self.order = torch.cat([positives - delta, positives + delta]).sort()
        # Rounded up, not to nearest: a score of this dtype is below an edge exactly if it is below the breakpoint.
        edges = self.breakpoints.to(dtype)
        above = torch.nextafter(edges, torch.full_like(edges, torch.inf))
        self.edges = torch.where(edges.double() < self.breakpoints, above, edges)
        self.slot_of_cell = self._build_table() if positives.device.type == "cpu" else None

    def count(self, scores: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Histogram of the negatives, and where every score lies.

        Returns:
            (2, 2P + 1) float64: number and sum of the scores with target 0 in each bin; bin 0 is not defined.
            (M,) int32: slot of each score; the bin is slot // lanes. It is 0 where the target is not.
        """
        slots = torch.empty(scores.shape, dtype=torch.int32, device=scores.device)
        size = min(self.chunk, len(scores))
        # One complex addition counts a score (real part) and sums it (imaginary part).
        total = torch.zeros(len(self.edges) + 1, self.lanes, dtype=torch.complex128, device=scores.device)
        entry = torch.ones(size, dtype=torch.complex128, device=scores.device)
        visible = torch.empty(size, dtype=self.dtype, device=scores.device)
        cells = torch.empty(size, dtype=torch.int32, device=scores.device)
        lane = torch.arange(size, dtype=torch.int32, device=scores.device) % self.lanes
        for part in self._parts(len(scores)):
            n = len(slots[part])
            target = targets[part].to(self.dtype)
            seen = torch.addcmul(scores[part].to(self.dtype), target, target, value=OUT_OF_SIGHT, out=visible[:n])
            torch.view_as_real(entry)[:n, 1].copy_(seen)
            slot = self._locate(seen, slots[part], cells[:n]).add_(lane[:n])
            total.view(-1).index_add_(0, slot, entry[:n])
        return torch.view_as_real(total).sum(1).T, slots

    def hits(self, histogram: Tensor) -> Tensor:
        """Sum of H(s_j - p_i) over the entries j of a histogram, for each positive i: (P,) float64."""
        count, total = histogram[:, 1:]  # between each breakpoint and the next
        beyond = count.flip(0).cumsum(0).flip(0) - count  # right of the next
        gaps = torch.diff(self.breakpoints, append=self.breakpoints[-1:])
        # Sum of relu(s - b), breakpoint by breakpoint from the right: only terms >= 0, so nothing cancels.
        steps = (total - count * self.breakpoints) + beyond * gaps
        hinges = torch.empty_like(steps)
        hinges[self.order] = steps.flip(0).cumsum(0).flip(0)
        at_lower, at_upper = hinges.view(2, -1)
        return (at_lower - at_upper) / (2 * self.delta)

    def weighted_steps(self, weights: Tensor, scores: Tensor, slots: Tensor) -> Tensor:
        """Sum over the positives i of weights[i] * H(s - p_i), for each score s, 0 where it was put out of sight.

        Args:
            weights: (P,) float64, >= 0.
            scores, slots: (M,) as given to and returned by `count`. Its memory is used for the result: gone after.
        """
        slopes = (torch.cat([weights, -weights])[self.order] / (2 * self.delta)).cumsum(0)
        rises = slopes[:-1] * torch.diff(self.breakpoints)
        values = torch.cat([rises.new_zeros(1), rises.cumsum(0)])
        anchors = self.edges.double()
        values = values + slopes * (anchors - self.breakpoints)
        # value + slope * (s - anchor): only terms >= 0 again, so the result is as exact as its dtype.
        tables = torch.nn.functional.pad(torch.stack([anchors, slopes, values]), (1, 0))
        anchors, slopes, values = tables.to(self.dtype).repeat_interleave(self.lanes, dim=1)

        fits = scores.dtype == self.dtype == torch.float32
        result = slots.view(torch.float32) if fits else torch.empty_like(scores)
        size = min(self.chunk, len(scores))
        anchor, slope, value = torch.empty(3, size, dtype=self.dtype, device=scores.device)
        for part in self._parts(len(scores)):
            slot = slots[part]
            n = len(slot)
            torch.index_select(anchors, 0, slot, out=anchor[:n])
            torch.index_select(slopes, 0, slot, out=slope[:n])
            torch.index_select(values, 0, slot, out=value[:n])
            distance = torch.sub(scores[part], anchor[:n], out=anchor[:n])
            result[part] = value[:n].addcmul_(slope[:n], distance)
        return result

    def _parts(self, length: int) -> Iterator[slice]:
        return (slice(start, start + self.chunk) for start in range(0, length, self.chunk))

    def _locate(self, scores: Tensor, slots: Tensor, cells: Tensor) -> Tensor:
        """First slot of the bin of each score (n,), written to slots; cells is scratch space."""
        if self.slot_of_cell is None:
            torch.searchsorted(self.edges, scores, right=True, out_int32=True, out=slots)
            return slots.mul_(self.lanes)
        torch.index_select(self.slot_of_cell, 0, self._cell(scores.clone(), cells), out=slots)
        if slots.min() < 0:
            undecided = torch.clamp(slots, max=0, out=cells).nonzero().squeeze(1)
            bins = torch.searchsorted(self.edges, scores[undecided], right=True, out_int32=True)
            slots[undecided] = bins * self.lanes
        return slots

    def _build_table(self) -> Tensor:
        """First slot of the bin of every cell, equal cuts of the axis; -1 where an edge lies in the cell.

        Exact whatever the rounding, because scores and edges go through the same monotone map.
        """
        num_cells = 1 << max(16, min(20, (32 * len(self.edges)).bit_length()))
        width = ((self.breakpoints[-1] - self.breakpoints[0]) / (num_cells - 4)).clamp_min(1e-30)
        self.origin = (self.breakpoints[0] - 2 * width).to(self.dtype)
        self.cells_per_unit = (1 / width).to(self.dtype)
        self.last_cell = num_cells - 1
        table = torch.zeros(num_cells, dtype=torch.int32)
        cells = self._cell(self.edges.clone(), torch.empty(len(self.edges), dtype=torch.int32))
        table.index_add_(0, cells, torch.full_like(cells, self.lanes)).cumsum_(0)
        table[cells.long()] = -1
        return table

    def _cell(self, scores: Tensor, cells: Tensor) -> Tensor:
        """Cell of each score (n,), written to cells; overwrites the scores."""
        cells.copy_(scores.sub_(self.origin).mul_(self.cells_per_unit).clamp_(0, self.last_cell))
        return cells.clamp_(min=0)  # not a number became any integer
