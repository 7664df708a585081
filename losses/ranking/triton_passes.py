"""The passes of a ranking over all M entries as Triton kernels.

Each program takes one block of entries. Together they read the logits twice, the targets once and, unless the positives
are known, once more, and again those of blocks with ignored entries; they write the gradient once, in the logits' type.
Beside that they keep a flag for each block, and a bounded number of copies of the histogram, so that few programs add
to the same place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..triton_support import ceil_div
from .triton_bins import TritonBins
from .triton_cells import find_bin
from .triton_entries import read_positives, write_positives
from .triton_histogram import IGNORED, NOTHING, Zeros, histogram_of_negatives
from .triton_sums import gradient_tables, rank_positives

if TYPE_CHECKING:
    from .ranking import Ranking

BLOCK = 2048  # entries of a program
NUM_WARPS = 8  # 8 entries a thread: 62 registers at most, which lets 1024 threads share a multiprocessor


class TritonPasses:
    """See `TorchPasses`. Logits and targets may be strided; nothing is copied or converted."""

    on_kernels = True
    bins: TritonBins

    def find_entries(self, targets: Tensor, known: Tensor | None = None) -> Tensor:
        if known is not None:
            return known.contiguous()
        size, (num_blocks,) = len(targets), _grid(targets)
        targets = as_numbers(targets)
        counts = torch.empty(num_blocks, dtype=torch.int32, device=targets.device)
        if not size:
            return torch.empty(0, dtype=torch.int64, device=targets.device)
        with torch.cuda.device_of(targets):
            _survey[num_blocks,](targets, targets.stride(0), size, counts, BLOCK, num_warps=NUM_WARPS)
            ends = counts.cumsum(0)
            index = torch.empty(int(ends[-1]), dtype=torch.int64, device=targets.device)
            if len(index):
                _collect[num_blocks,](targets, targets.stride(0), size, counts, ends, index, BLOCK, num_warps=NUM_WARPS)
        return index

    def positives(self, logits: Tensor, entries: Tensor, weights: Tensor | None) -> Tensor:
        return read_positives(logits, entries, weights)

    def make_bins(
        self, positive_logits: Tensor, weights: Tensor, delta: float, dtype: torch.dtype, logits: Tensor
    ) -> TritonBins:
        num_bins, (num_blocks,) = 2 * len(positive_logits) + 1, _grid(logits)
        self._zeros = Zeros.of(num_bins, num_blocks, BLOCK, dtype, delta, logits.device)
        self.bins = TritonBins(positive_logits, weights, delta, dtype, self._zeros.among)
        return self.bins

    def histogram(self, logits: Tensor, targets: Tensor) -> Tensor:
        self._contents = torch.empty(_grid(logits), dtype=torch.int8, device=logits.device)
        return histogram_of_negatives(
            logits, as_numbers(targets), self.bins, self._zeros, self._contents, BLOCK, NUM_WARPS
        )

    def rank(self, negatives: Tensor, weights: Tensor) -> Tensor:
        among = self._zeros.among
        del self._zeros  # megabytes that backward has no use for
        return rank_positives(self.bins, negatives, among, weights)

    def gradient(self, ranking: Ranking, logits: Tensor, targets: Tensor, errors: Tensor, factor: Tensor) -> Tensor:
        bins = self.bins
        targets = as_numbers(targets)
        anchors, lines = gradient_tables(bins, errors, factor, ranking.false_positives)
        if lines.dtype == torch.float32:
            lines = lines.view(torch.int64)  # both numbers of a bin in one look-up
        gradient = torch.empty_like(logits, memory_format=torch.contiguous_format)
        with torch.cuda.device_of(logits):
            _weighted_steps[_grid(logits)](
                *(logits, logits.stride(0), targets, targets.stride(0), len(logits), self._contents),
                *(bins.edges, bins.ranges, bins.cells_per_unit, len(bins.ranges)),
                *(anchors, lines, gradient, BLOCK),
                num_warps=NUM_WARPS,
            )
        own = errors[ranking.own]
        write_positives(own, ranking.own_entries, factor, ranking.num_positives, gradient)
        return gradient


def _grid(entries: Tensor) -> tuple[int]:
    return (ceil_div(len(entries), BLOCK),)


def as_numbers(targets: Tensor) -> Tensor:
    return targets.view(torch.uint8) if targets.dtype == torch.bool else targets


@triton.jit
def _survey(targets, target_stride, size, counts, BLOCK: tl.constexpr):
    """Counts the positives of each block."""
    block = tl.program_id(0)
    entry = block.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    target = tl.load(targets + entry * target_stride, mask=entry < size, other=0)
    tl.store(counts + block, tl.sum((target == 1).to(tl.int32)))


@triton.jit
def _collect(targets, target_stride, size, counts, ends, index, BLOCK: tl.constexpr):
    """Writes the indices of the positives, ascending; ends counts the positives up to the end of each block."""
    block = tl.program_id(0)
    count = tl.load(counts + block)
    if count > 0:
        entry = block.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        positive = tl.load(targets + entry * target_stride, mask=entry < size, other=0) == 1
        place = tl.load(ends + block) - count + tl.cumsum(positive.to(tl.int32), 0) - 1
        tl.store(index + place, entry, mask=positive)


@triton.jit(do_not_specialize=["num_cells"])
def _weighted_steps(
    logits,
    logit_stride,
    targets,
    target_stride,
    size,
    contents,
    edges,
    ranges,
    cells_per_unit,
    num_cells,
    anchors,
    lines,
    gradient,
    BLOCK: tl.constexpr,
):
    """value + slope * (logit - anchor) of each negative's bin, anything for positives; empty blocks are not read."""
    block = tl.program_id(0)
    entry = block.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = entry < size
    steps = tl.zeros([BLOCK], edges.dtype.element_ty)
    content = tl.load(contents + block)
    if content != NOTHING:
        logit = tl.load(logits + entry * logit_stride, mask=inside, other=0).to(edges.dtype.element_ty)
        relevant = inside & (logit >= tl.load(edges))
        if content == IGNORED:
            relevant = relevant & (tl.load(targets + entry * target_stride, mask=inside, other=1) == 0)
        bins = find_bin(logit, relevant, edges, ranges, cells_per_unit, num_cells)
        distance = logit - tl.load(anchors + bins)
        if lines.dtype.element_ty == tl.int64:
            line = tl.load(lines + bins)
            slope = line.to(tl.int32).to(tl.float32, bitcast=True)
            value = (line >> 32).to(tl.int32).to(tl.float32, bitcast=True)
        else:
            slope, value = tl.load(lines + 2 * bins), tl.load(lines + 2 * bins + 1)
        steps = tl.where(relevant, value + slope * distance, 0.0)
    tl.store(gradient + entry, steps.to(gradient.dtype.element_ty), mask=inside)
