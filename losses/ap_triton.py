"""AP Loss of the ranked positives as a Triton kernel; `ap_loss` explains it."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .ranking import Ranking
from .ranking.triton_order import SCANNED
from .ranking.triton_passes import TritonPasses


def ap_parts(ranking: Ranking) -> tuple[Tensor, Tensor]:
    """The loss, a scalar of its type, and the errors (P,) float64 that drive its gradient; P > 0."""
    assert isinstance(ranking.passes, TritonPasses)
    order, size = ranking.passes.bins.order, ranking.num_positives
    errors = torch.empty_like(ranking.rank)
    loss = errors.new_empty((), dtype=ranking.compute_dtype)
    with torch.cuda.device_of(errors):
        _imprecision[1,](ranking.false_positives, ranking.rank, order, size, errors, loss, SCANNED)
    return loss, errors


@triton.jit
def _smaller(a, b):
    return tl.minimum(a, b)


@triton.jit(do_not_specialize=["size"])
def _imprecision(false_positives, ranks, order, size, errors, loss, SCANNED: tl.constexpr):
    """Smallest N_FP / rank of each positive and those below it, and the mean of these; NaN if any is."""
    mean = tl.full((), 0.0, tl.float64)
    lowest = tl.full((), 1.0, tl.float64)
    start = 0
    while start < size:
        index = start + tl.arange(0, SCANNED)
        valid = index < size
        own = tl.load(order + index, mask=valid, other=0)
        number = tl.load(false_positives + own, mask=valid, other=0)
        imprecision = tl.where(valid, number / tl.load(ranks + own, mask=valid, other=1), 1.0)
        running = tl.minimum(tl.associative_scan(imprecision, 0, _smaller), lowest)
        lowest = tl.min(running)
        tl.store(errors + own, running, mask=valid)
        mean += tl.sum(tl.where(valid, running + 0 * imprecision, 0.0))  # a minimum may pass over NaN
        start += SCANNED
    tl.store(loss, (mean / size.to(tl.float64)).to(loss.dtype.element_ty))
