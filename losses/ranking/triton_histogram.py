"""The negatives' number and sum in each bin, by Triton kernels: programs add to copies, which are then added up."""

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..triton_support import ceil_div
from .triton_bins import TritonBins
from .triton_cells import find_bin

# Numbers of 8 bytes in all copies of the histogram together, 8 MiB: it stays in the cache.
MAX_COPIED = 1 << 20
MAX_COPIES = 1024
MOST_COUNTED = 1 << 25  # entries of a copy, so that the unit of a distance is at most 2**-8 * delta
COPIES, BINS = 32, 32  # of them that a program adds up at a time
# Contents of a block above the first edge.
NOTHING, NO_IGNORED, IGNORED = (tl.constexpr(code) for code in range(3))


class Packing(NamedTuple):
    """How number and sum of the float32 logits in a bin share an int64, so that one addition is enough.

    The number is in the bits from `shift` on, the sum of the distances to the bin's edge below them, in units of
    1 / unit. A bin in which some H rises is no wider than 2 * delta; of others the sum does not matter, and distances
    count as `widest` at most.
    """

    shift: int
    unit: float
    widest: float

    @classmethod
    def of(cls, most: int, delta: float) -> "Packing":
        """For so many logits at most in a bin of a copy: 240 000 leave 2**-25 * delta as the unit, which is finer than
        the last digit of most float32 logits."""
        bits = most.bit_length()
        # within what float64 can divide by; no two float32 numbers are 2**130 apart
        widest = 2.0 ** max(-900, min(130, math.frexp(delta)[1] + 2))
        return cls(63 - bits, 2.0 ** (63 - 2 * bits) / widest, widest)


class Zeros(NamedTuple):
    """What must begin at 0, in one piece of memory, as 0 is the same bits in every type.

    among: see `TritonBins`.
    not_finite: (1,) float64, to be NaN where a logit is not finite.
    copies: (C, 2P + 1) int64 as packed, or of float64 logits (C, 2, 2P + 1) float64, numbers and sums.
    """

    among: Tensor
    not_finite: Tensor
    copies: Tensor
    packing: Packing

    @classmethod
    def of(
        cls, num_bins: int, num_blocks: int, block: int, dtype: torch.dtype, delta: float, device: torch.device
    ) -> "Zeros":
        """For so many blocks of entries, and logits located in float32 or float64."""
        each = num_bins if dtype == torch.float32 else 2 * num_bins
        num_copies = max(1, min(MAX_COPIES, num_blocks, MAX_COPIED // each), ceil_div(num_blocks * block, MOST_COUNTED))
        zeros = torch.zeros(4 * num_bins + 1 + num_copies * each, dtype=torch.int64, device=device)
        among, not_finite, copies = zeros.split([4 * num_bins, 1, num_copies * each])
        copies = copies.view(num_copies, each) if dtype == torch.float32 else copies.view(dtype).view(-1, 2, num_bins)
        packing = Packing.of(ceil_div(num_blocks, num_copies) * block, delta)
        return cls(among.view(torch.float64).view(2, 2, num_bins), not_finite.view(torch.float64), copies, packing)


def histogram_of_negatives(
    logits: Tensor, targets: Tensor, bins: TritonBins, zeros: Zeros, contents: Tensor, block: int, num_warps: int
) -> Tensor:
    """(2, 2P + 1) float64, as of `LogitBins.histogram`; notes in contents, one for each block of entries, int8, what it
    holds above the first edge."""
    num_bins, num_copies, packing = len(bins.origins), len(zeros.copies), zeros.packing
    histogram = bins.origins.new_empty(2, num_bins)
    with torch.cuda.device_of(logits):
        _histogram[(len(contents),)](
            *(logits, logits.stride(0), targets, targets.stride(0), len(logits), contents),
            *(bins.edges, bins.ranges, bins.cells_per_unit, len(bins.ranges), bins.origins, zeros.not_finite),
            *(zeros.copies, num_copies, num_bins, *packing, block),
            num_warps=num_warps,
        )
        _sum_copies[(ceil_div(num_bins, BINS),)](
            *(zeros.copies, num_copies, bins.origins, bins.edges, zeros.not_finite, histogram, num_bins),
            *(packing.shift, packing.unit, COPIES, BINS),
        )
    return histogram


@triton.jit
def _finite(edge):
    """A float32 edge in float64; where it is infinite, the largest that is not, from which distances are numbers."""
    return tl.minimum(tl.maximum(edge.to(tl.float64), -3.4028234663852886e38), 3.4028234663852886e38)


@triton.jit(do_not_specialize=["num_copies", "num_bins", "num_cells", "shift"])
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
    not_finite,
    copies,
    num_copies,
    num_bins,
    shift,
    unit: tl.float64,
    widest: tl.float64,
    BLOCK: tl.constexpr,
):
    """Adds number and sum of the negatives in each bin to one of the copies; notes what blocks hold above an edge.

    Of float32 logits both are one number, see `Packing`. Sums of float64 logits are relative to the bins' origins.
    """
    block = tl.program_id(0)
    lane = tl.arange(0, BLOCK)
    entry = block.to(tl.int64) * BLOCK + lane
    inside = entry < size
    logit = tl.load(logits + entry * logit_stride, mask=inside, other=0).to(edges.dtype.element_ty)
    if tl.sum((tl.abs(logit) < float("inf")).to(tl.int32)) < BLOCK:
        tl.store(not_finite, tl.full((), float("nan"), tl.float64))

    relevant = inside & (logit >= tl.load(edges))
    content = tl.max(relevant.to(tl.int32), 0) * NO_IGNORED
    if content != NOTHING:
        target = tl.load(targets + entry * target_stride, mask=inside, other=0)  # as many at a time as it can
        if tl.max((relevant & (target != 0) & (target != 1)).to(tl.int32), 0) > 0:
            content = tl.full((), IGNORED, tl.int32)
        relevant = relevant & (target == 0)
        bins = find_bin(logit, relevant, edges, ranges, cells_per_unit, num_cells)
        # Often one bin has nearly all: add those of the first entry's bin here, and to memory once.
        first = tl.sum(tl.where((lane == 0) & relevant, bins, 0))
        together = relevant & (bins == first)
        alone = relevant & (bins != first)
        copy = (block % num_copies).to(tl.int64)
        if edges.dtype.element_ty == tl.float64:
            number = copies + copy * 2 * num_bins
            total = number + num_bins
            wide = logit - tl.load(origins + bins)  # as in LogitBins.histogram
            tl.atomic_add(number + first, tl.sum(together.to(tl.int32)).to(tl.float64), sem="relaxed")
            tl.atomic_add(total + first, tl.sum(tl.where(together, wide, 0.0)), sem="relaxed")
            tl.atomic_add(number + bins, tl.full([BLOCK], 1.0, tl.float64), mask=alone, sem="relaxed")
            tl.atomic_add(total + bins, wide, mask=alone, sem="relaxed")
        else:
            distance = logit.to(tl.float64) - _finite(tl.load(edges + bins - 1, mask=relevant, other=0))
            packed = (tl.minimum(distance, widest) * unit + 0.5).to(tl.int64) + (tl.full((), 1, tl.int64) << shift)
            number = copies + copy * num_bins
            tl.atomic_add(number + first, tl.sum(tl.where(together, packed, 0)), sem="relaxed")
            tl.atomic_add(number + bins, packed, mask=alone, sem="relaxed")
    tl.store(contents + block, content)


@triton.jit(do_not_specialize=["num_copies", "num_bins", "shift"])
def _sum_copies(
    copies,
    num_copies,
    origins,
    edges,
    not_finite,
    histogram,
    num_bins,
    shift,
    unit: tl.float64,
    COPIES: tl.constexpr,
    BINS: tl.constexpr,
):
    """Adds the copies up, in sums relative to the bins' origins; the last number is NaN where a logit is not finite."""
    index = tl.program_id(0) * BINS + tl.arange(0, BINS)
    valid = index < num_bins
    number = tl.zeros([BINS], tl.float64)
    total = tl.zeros([BINS], tl.float64)
    start = 0
    while start < num_copies:
        copy = (start + tl.arange(0, COPIES)[:, None]).to(tl.int64)
        mask = (copy < num_copies) & valid[None, :]
        if edges.dtype.element_ty == tl.float64:
            place = copies + copy * 2 * num_bins + index[None, :]
            number += tl.sum(tl.load(place, mask=mask, other=0), 0)
            total += tl.sum(tl.load(place + num_bins, mask=mask, other=0), 0)
        else:
            packed = tl.load(copies + copy * num_bins + index[None, :], mask=mask, other=0)
            counted = packed >> shift
            number += tl.sum(counted, 0).to(tl.float64)
            total += tl.sum((packed - (counted << shift)).to(tl.float64), 0)
        start += COPIES
    number += tl.load(not_finite + 0 * index, mask=index == num_bins - 1, other=0)
    if edges.dtype.element_ty == tl.float32:
        edge = _finite(tl.load(edges + index - 1, mask=valid & (index > 0), other=0))
        total = total / unit + number * (edge - tl.load(origins + index, mask=valid, other=0))
    tl.store(histogram + index, number, mask=valid)
    tl.store(histogram + num_bins + index, total, mask=valid)
