"""The passes of a ranking over all M entries as Triton kernels.

Each program takes one block of entries. The three passes read at most the targets once, the logits twice, and again
the targets of blocks that hold more than negatives; they write the gradient once. Beside that they keep a flag or two
for each block, and a bounded number of copies of the histogram, so that few programs add to the same place.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .logit_bins import LogitBins

BLOCK = 2048  # entries of a program
NUM_WARPS = 8  # 8 entries a thread: 62 registers at most, which lets 1024 threads share a multiprocessor
# Float64 numbers in all copies of the histogram together, 8 MiB: it stays in the cache.
MAX_COPIED = 1 << 20
MAX_COPIES = 1024
# Contents of a block.
ONLY_NEGATIVES, POSITIVES, IGNORED = (tl.constexpr(code) for code in range(3))


class TritonPasses:
    """See `TorchPasses`. Logits and targets may be strided; nothing is copied or converted."""

    def find_entries(self, targets: Tensor, known: Tensor | None = None) -> Tensor:
        size, (num_blocks,) = len(targets), _grid(targets)
        targets = as_numbers(targets)
        counts = torch.empty(num_blocks, dtype=torch.int32, device=targets.device)
        self._holds = torch.empty(num_blocks, dtype=torch.int8, device=targets.device)
        if not size:
            return torch.empty(0, dtype=torch.int64, device=targets.device)
        with torch.cuda.device_of(targets):
            _survey[num_blocks,](targets, targets.stride(0), size, counts, self._holds, BLOCK, num_warps=NUM_WARPS)
            if known is not None:
                return known
            ends = counts.cumsum(0)
            index = torch.empty(int(ends[-1]), dtype=torch.int64, device=targets.device)
            if len(index):
                _collect[num_blocks,](targets, targets.stride(0), size, counts, ends, index, BLOCK, num_warps=NUM_WARPS)
        return index

    def histogram(self, bins: LogitBins, logits: Tensor, targets: Tensor) -> Tensor:
        targets = as_numbers(targets)
        num_bins = len(bins.edges) + 1
        num_copies = min(MAX_COPIES, *_grid(logits), max(1, MAX_COPIED // (2 * num_bins)))
        copies = bins.breakpoints.new_zeros(num_copies, 2, num_bins)
        self._relevant = torch.empty_like(self._holds)
        self._edges = _padded(bins.edges)
        with torch.cuda.device_of(logits):
            _histogram[_grid(logits)](
                *(logits, logits.stride(0), targets, targets.stride(0), len(logits), self._holds, self._relevant),
                *(self._edges, len(self._edges) // 2, bins.origins, copies, num_copies, num_bins, BLOCK),
                num_warps=NUM_WARPS,
            )
        histogram = copies.sum(0)
        return histogram if self._edges.dtype == torch.float64 else bins.relative(histogram)

    def weighted_steps(self, bins: LogitBins, weights: Tensor, logits: Tensor, targets: Tensor) -> Tensor:
        targets = as_numbers(targets)
        anchors, slopes, values = bins.tables(weights)
        result = torch.empty_like(logits, memory_format=torch.contiguous_format)
        with torch.cuda.device_of(logits):
            _weighted_steps[_grid(logits)](
                *(logits, logits.stride(0), targets, targets.stride(0), len(logits), self._holds, self._relevant),
                *(self._edges, len(self._edges) // 2, anchors, slopes, values, result, BLOCK),
                num_warps=NUM_WARPS,
            )
        return result


def _grid(entries: Tensor) -> tuple[int]:
    return (triton.cdiv(len(entries), BLOCK),)


def as_numbers(targets: Tensor) -> Tensor:
    return targets.view(torch.uint8) if targets.dtype == torch.bool else targets


def _padded(edges: Tensor) -> Tensor:
    """Pads to a power of two, of which the search never reads the last, with NaN, which no logit is above."""
    length = triton.next_power_of_2(len(edges) + 1)
    return torch.nn.functional.pad(edges, (0, length - len(edges)), value=torch.nan)


@triton.jit
def _survey(targets, target_stride, size, counts, holds, BLOCK: tl.constexpr):
    """Counts the positives of each block, and notes what else it holds."""
    block = tl.program_id(0)
    entry = block.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    target = tl.load(targets + entry * target_stride, mask=entry < size, other=0)
    positives = tl.sum((target == 1).to(tl.int32))
    ignored = tl.sum(((target != 1) & (target != 0)).to(tl.int32))
    tl.store(counts + block, positives)
    tl.store(holds + block, tl.where(ignored > 0, IGNORED, tl.where(positives > 0, POSITIVES, ONLY_NEGATIVES)))


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


@triton.jit
def _bin(logit, edges, half, BLOCK: tl.constexpr):
    """Number of edges at or below each logit, by bisection of a power of two of them, 2 * half."""
    below = tl.zeros([BLOCK], tl.int32)
    step = half
    while step > 0:
        below += tl.where(tl.load(edges + below + step - 1) <= logit, step, 0)
        step //= 2
    return below


@triton.jit(do_not_specialize=["num_copies"])
def _histogram(
    logits,
    logit_stride,
    targets,
    target_stride,
    size,
    holds,
    relevants,
    edges,
    half,
    origins,
    copies,
    num_copies,
    num_bins,
    BLOCK: tl.constexpr,
):
    """Adds number and sum of the negatives in each bin to one of the copies; notes blocks with any above an edge.

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
    if tl.load(holds + block) != ONLY_NEGATIVES:
        relevant = relevant & (tl.load(targets + entry * target_stride, mask=inside, other=1) == 0)
    any_relevant = tl.max(relevant.to(tl.int32), 0)
    tl.store(relevants + block, any_relevant)
    if any_relevant > 0:
        bins = _bin(logit, edges, half, BLOCK)
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


@triton.jit
def _weighted_steps(
    logits,
    logit_stride,
    targets,
    target_stride,
    size,
    holds,
    relevants,
    edges,
    half,
    anchors,
    slopes,
    values,
    result,
    BLOCK: tl.constexpr,
):
    """value + slope * (logit - anchor) of each negative's bin; blocks with nothing relevant are not read."""
    block = tl.program_id(0)
    entry = block.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = entry < size
    steps = tl.zeros([BLOCK], edges.dtype.element_ty)
    if tl.load(relevants + block) > 0:
        logit = tl.load(logits + entry * logit_stride, mask=inside, other=0).to(edges.dtype.element_ty)
        relevant = inside & (logit >= tl.load(edges))
        if tl.load(holds + block) == IGNORED:
            relevant = relevant & (tl.load(targets + entry * target_stride, mask=inside, other=1) == 0)
        bins = _bin(logit, edges, half, BLOCK)
        distance = logit - tl.load(anchors + bins)
        steps = tl.where(relevant, tl.load(values + bins) + tl.load(slopes + bins) * distance, 0.0)
    tl.store(result + entry, steps.to(result.dtype.element_ty), mask=inside)
