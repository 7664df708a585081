"""aLRP Loss of the ranked positives as Triton kernels; `alrp_loss` explains the sums."""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from .ranking import Ranking
from .ranking.triton_order import SCANNED
from .ranking.triton_passes import TritonPasses


class Parts(NamedTuple):
    """Both parts, scalars of the type of the loss, and what drives their gradients.

    excess: (P,) float64, error of each positive above its target.
    weight: (P,) float64, of E in the localisation part.
    """

    classification: Tensor
    excess: Tensor
    localisation: Tensor
    weight: Tensor


def alrp_parts(ranking: Ranking, min_false_positives: float) -> Parts:
    """Of P > 0 positives of all processes, with their E as weights."""
    assert isinstance(ranking.passes, TritonPasses)
    bins, size = ranking.passes.bins, ranking.num_positives
    excess, inverse_ranks, weight = (torch.empty_like(ranking.weights) for _ in range(3))
    classification, localisation = (excess.new_empty((), dtype=ranking.compute_dtype) for _ in range(2))
    with torch.cuda.device_of(excess):
        _classification[1,](
            *(ranking.false_positives, ranking.rank, ranking.weight_above, bins.order, size, min_false_positives),
            *(excess, inverse_ranks, classification, SCANNED),
        )
        _localisation[1,](inverse_ranks, bins.order, bins.ends, ranking.weights, size, weight, localisation, SCANNED)
    return Parts(classification, excess, localisation, weight)


class Localisation(torch.autograd.Function):
    """Gives the localisation part the gradient of E of this process's positives: its weight."""

    @staticmethod
    def forward(ctx: Any, loc_errors: Tensor, value: tuple[Tensor], weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.dtype = loc_errors.dtype
        return value[0]  # out of a tuple it is no input, of which a result must be a copy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return torch.mul(weight, grad_output, out=torch.empty_like(weight, dtype=ctx.dtype)), None, None


@triton.jit(do_not_specialize=["size"])
def _classification(
    false_positives,
    ranks,
    weight_above,
    order,
    size,
    MIN_FALSE_POSITIVES: tl.constexpr,
    excess,
    inverse_ranks,
    classification,
    SCANNED: tl.constexpr,
):
    """The mean of N_FP / rank, and the sums of 1 / rank up to each positive, in the order of the logits."""
    mean = tl.full((), 0.0, tl.float64)
    before = tl.full((), 0.0, tl.float64)
    start = 0
    while start < size:
        index = start + tl.arange(0, SCANNED)
        valid = index < size
        own = tl.load(order + index, mask=valid, other=0)
        number = tl.load(false_positives + own, mask=valid, other=0)
        rank = tl.load(ranks + own, mask=valid, other=1)
        error = (number + tl.load(weight_above + own, mask=valid, other=0)) / rank
        tl.store(excess + own, tl.where(number <= MIN_FALSE_POSITIVES, 0.0, error), mask=valid)
        inverse = tl.where(valid, 1 / rank, 0.0)
        tl.store(inverse_ranks + index, before + tl.cumsum(inverse, 0), mask=valid)
        before += tl.sum(inverse)
        mean += tl.sum(number / rank)
        start += SCANNED
    tl.store(classification, (mean / size.to(tl.float64)).to(classification.dtype.element_ty))


@triton.jit(do_not_specialize=["size"])
def _localisation(inverse_ranks, order, ends, loc_errors, size, weight, localisation, SCANNED: tl.constexpr):
    """Each E gets the sum of 1 / rank up to it, and to those that are equal, by P; and the sum of all of it."""
    mean = tl.full((), 0.0, tl.float64)
    start = 0
    while start < size:
        index = start + tl.arange(0, SCANNED)
        valid = index < size
        own = tl.load(order + index, mask=valid, other=0)
        end = tl.load(ends + index, mask=valid, other=1)
        share = tl.load(inverse_ranks + end - 1, mask=valid, other=0) / size.to(tl.float64)
        tl.store(weight + own, share, mask=valid)
        mean += tl.sum(share * tl.load(loc_errors + own, mask=valid, other=0))
        start += SCANNED
    tl.store(localisation, mean.to(localisation.dtype.element_ty))
