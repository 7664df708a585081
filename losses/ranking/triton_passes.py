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
from .triton_sums import gradient_tables, rank_positives

if TYPE_CHECKING:
    from .ranking import Ranking

BLOCK = 2048  # entries of a program
NUM_WARPS = 8  # 8 entries a thread: 62 registers at most, which lets 1024 threads share a multiprocessor
# Float64 numbers in all copies of the histogram together, 8 MiB: it stays in the cache.
MAX_COPIED = 1 << 20
MAX_COPIES = 1024
COPIES, BINS = 32, 32  # of them that a program adds up at a time
# Contents of a block above the first edge.
NOTHING, NO_IGNORED, IGNORED = (tl.constexpr(code) for code in range(3))


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
        num_bins = 2 * len(positive_logits) + 1
        num_copies = min(MAX_COPIES, *_grid(logits), max(1, MAX_COPIED // (2 * num_bins)))
        # One call for all that must begin at 0.
        self._zeros = positive_logits.new_zeros(num_copies + 2, 2, num_bins)
        self.bins = TritonBins(positive_logits, weights, delta, dtype, self._zeros[-2:])
        return self.bins

    def histogram(self, logits: Tensor, targets: Tensor) -> Tensor:
        bins = self.bins
        targets, copies = as_numbers(targets), self._zeros[:-2]
        num_copies, _, num_bins = copies.shape
        self._contents = torch.empty(_grid(logits), dtype=torch.int8, device=logits.device)
        histogram = copies.new_empty(2, num_bins)
        with torch.cuda.device_of(logits):
            _histogram[_grid(logits)](
                *(logits, logits.stride(0), targets, targets.stride(0), len(logits), self._contents),
                *(bins.edges, bins.ranges, bins.cells_per_unit, len(bins.ranges), bins.origins),
                *(copies, num_copies, num_bins, BLOCK),
                num_warps=NUM_WARPS,
            )
            _sum_copies[ceil_div(num_bins, BINS),](
                copies, num_copies, bins.origins, bins.edges, histogram, num_bins, COPIES, BINS
            )
        return histogram

    def rank(self, negatives: Tensor, weights: Tensor) -> Tensor:
        among = self._zeros[-2:]
        del self._zeros  # megabytes that backward has no use for
        return rank_positives(self.bins, negatives, among, weights)

    def gradient(self, ranking: Ranking, logits: Tensor, targets: Tensor, errors: Tensor, factor: Tensor) -> Tensor:
        bins = self.bins
        targets = as_numbers(targets)
        tables = gradient_tables(bins, errors, factor, ranking.false_positives)
        gradient = torch.empty_like(logits, memory_format=torch.contiguous_format)
        with torch.cuda.device_of(logits):
            _weighted_steps[_grid(logits)](
                *(logits, logits.stride(0), targets, targets.stride(0), len(logits), self._contents),
                *(bins.edges, bins.ranges, bins.cells_per_unit, len(bins.ranges)),
                *(*tables, gradient, BLOCK),
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


@triton.jit(do_not_specialize=["num_copies", "num_bins", "num_cells"])
def _histogram(
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
    origins,
    copies,
    num_copies,
    num_bins,
    BLOCK: tl.constexpr,
):
    """Adds number and sum of the negatives in each bin to one of the copies; notes what blocks hold above an edge.

    Sums of float64 logits are relative to the bins' origins.
    """
    block = tl.program_id(0)
    lane = tl.arange(0, BLOCK)
    entry = block.to(tl.int64) * BLOCK + lane
    inside = entry < size
    logit = tl.load(logits + entry * logit_stride, mask=inside, other=0).to(edges.dtype.element_ty)
    number = copies + (block % num_copies).to(tl.int64) * 2 * num_bins
    total = number + num_bins
    not_finite = tl.sum((tl.abs(logit) < float("inf")).to(tl.int32)) < BLOCK
    if not_finite:
        tl.atomic_add(number + num_bins - 1, tl.full((), float("nan"), tl.float64), sem="relaxed")

    relevant = inside & (logit >= tl.load(edges))
    content = tl.max(relevant.to(tl.int32), 0) * NO_IGNORED
    if content != NOTHING:
        target = tl.load(targets + entry * target_stride, mask=inside, other=0)  # as many at a time as it can
        if tl.max((relevant & (target != 0) & (target != 1)).to(tl.int32), 0) > 0:
            content = tl.full((), IGNORED, tl.int32)
        relevant = relevant & (target == 0)
        bins = find_bin(logit, relevant, edges, ranges, cells_per_unit, num_cells)
        wide = logit.to(tl.float64)
        if edges.dtype.element_ty == tl.float64:  # as in LogitBins.histogram
            wide -= tl.load(origins + bins)
        # Often one bin has nearly all: add those of the first entry's bin here, and to memory once.
        first = tl.sum(tl.where((lane == 0) & relevant, bins, 0))
        together = relevant & (bins == first)
        tl.atomic_add(number + first, tl.sum(together.to(tl.int32)).to(tl.float64), sem="relaxed")
        tl.atomic_add(total + first, tl.sum(tl.where(together, wide, 0.0)), sem="relaxed")
        alone = relevant & (bins != first)
        tl.atomic_add(number + bins, tl.full([BLOCK], 1.0, tl.float64), mask=alone, sem="relaxed")
        tl.atomic_add(total + bins, wide, mask=alone, sem="relaxed")
    tl.store(contents + block, content)


@triton.jit(do_not_specialize=["num_copies", "num_bins"])
def _sum_copies(copies, num_copies, origins, edges, histogram, num_bins, COPIES: tl.constexpr, BINS: tl.constexpr):
    """Adds the copies up, and makes the sums of float32 logits relative to the bins' origins."""
    index = tl.program_id(0) * BINS + tl.arange(0, BINS)
    valid = index < num_bins
    number = tl.zeros([BINS], tl.float64)
    total = tl.zeros([BINS], tl.float64)
    start = 0
    while start < num_copies:
        copy = start + tl.arange(0, COPIES)[:, None]
        mask = (copy < num_copies) & valid[None, :]
        place = copies + copy.to(tl.int64) * 2 * num_bins + index[None, :]
        number += tl.sum(tl.load(place, mask=mask, other=0), 0)
        total += tl.sum(tl.load(place + num_bins, mask=mask, other=0), 0)
        start += COPIES
    if edges.dtype.element_ty == tl.float32:
        total -= number * tl.load(origins + index, mask=valid, other=0)
    tl.store(histogram + index, number, mask=valid)
    tl.store(histogram + num_bins + index, total, mask=valid)


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
    slopes,
    values,
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
        steps = tl.where(relevant, tl.load(values + bins) + tl.load(slopes + bins) * distance, 0.0)
    tl.store(gradient + entry, steps.to(gradient.dtype.element_ty), mask=inside)
