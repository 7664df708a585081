"""What is read and written at the positives' places among the logits, by Triton kernels."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..triton_support import ceil_div

ENTRIES = 128  # of a program


def read_positives(logits: Tensor, entries: Tensor, weights: Tensor | None) -> Tensor:
    """(2, P) float64: logits of the entries (P,) int64, 0 where they are not finite, and their weights, 0 if None."""
    weights = None if weights is None else weights.contiguous()
    own = torch.empty(2, len(entries), dtype=torch.float64, device=logits.device)
    if len(entries):
        with torch.cuda.device_of(logits):
            _positives[ceil_div(len(entries), ENTRIES),](
                logits, logits.stride(0), entries, len(entries), weights, own, ENTRIES
            )
    return own


def write_positives(errors: Tensor, entries: Tensor, factor: Tensor, num: int, gradient: Tensor) -> None:
    """gradient[entries] = -factor * errors / num; (P,) float64, (P,) int64, a scalar, and (M,) contiguous."""
    if len(entries):
        with torch.cuda.device_of(gradient):
            _lift[ceil_div(len(entries), ENTRIES),](errors, entries, len(entries), factor, num, gradient, ENTRIES)


@triton.jit(do_not_specialize=["num"])
def _positives(logits, logit_stride, entries, num, weights, own, ENTRIES: tl.constexpr):
    """Logits, 0 where they are not finite, and weights of the positives."""
    index = tl.program_id(0) * ENTRIES + tl.arange(0, ENTRIES)
    valid = index < num
    logit = tl.load(logits + tl.load(entries + index, mask=valid, other=0) * logit_stride, mask=valid, other=0)
    logit = logit.to(tl.float64)
    tl.store(own + index, tl.where(tl.abs(logit) < float("inf"), logit, 0.0), mask=valid)
    weight = tl.zeros([ENTRIES], tl.float64)
    if weights is not None:
        weight = tl.load(weights + index, mask=valid, other=0).to(tl.float64)
    tl.store(own + num + index, weight, mask=valid)


@triton.jit(do_not_specialize=["num_own", "num"])
def _lift(errors, entries, num_own, factor, num, gradient, ENTRIES: tl.constexpr):
    """The gradient of this process's positives: -factor * error / num."""
    index = tl.program_id(0) * ENTRIES + tl.arange(0, ENTRIES)
    valid = index < num_own
    scale = tl.load(factor).to(tl.float64) / num.to(tl.float64)
    lift = -tl.load(errors + index, mask=valid, other=0) * scale
    if gradient.dtype.element_ty != tl.float64:
        lift = lift.to(tl.float32)  # the only way from float64 to bfloat16
    entry = tl.load(entries + index, mask=valid, other=0)
    tl.store(gradient + entry, lift.to(gradient.dtype.element_ty), mask=valid)
