"""Focal loss as Triton kernels: forward reads logits and targets once, backward once more and writes the gradient."""

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from .ranking.triton_passes import BLOCK, NUM_WARPS, as_numbers
from .triton_support import ceil_div


class FocalSum(torch.autograd.Function):
    """Sum of the focal loss over positives and negatives, and the number of positives, float64."""

    @staticmethod
    def forward(ctx, logits: Tensor, targets: Tensor, alpha: float, gamma: float) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(logits, targets)
        ctx.alpha, ctx.gamma = float(alpha), float(gamma)
        num_blocks = ceil_div(len(logits), BLOCK)
        sums = torch.empty(2, num_blocks, dtype=torch.float64, device=logits.device)
        _launch(_focal_sum, logits, targets, sums, num_blocks, ctx.alpha, ctx.gamma)
        total, positives = sums.sum(1)
        ctx.mark_non_differentiable(positives)
        return total, positives

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_total: Tensor, _: None) -> tuple[Tensor, None, None, None]:
        logits, targets = ctx.saved_tensors
        gradient = torch.empty_like(logits, memory_format=torch.contiguous_format)
        _launch(_focal_gradient, logits, targets, gradient, grad_total, ctx.alpha, ctx.gamma)
        return gradient, None, None, None


def _launch(kernel, logits: Tensor, targets: Tensor, *arguments: object) -> None:
    targets = as_numbers(targets)
    grid = (ceil_div(len(logits), BLOCK),)
    entries = (logits, logits.stride(0), targets, targets.stride(0), len(logits))
    with torch.cuda.device_of(logits):
        kernel[grid](*entries, *arguments, BLOCK, num_warps=NUM_WARPS)


@triton.jit
def _load(logits, logit_stride, targets, target_stride, size, alpha, BLOCK: tl.constexpr):
    """Of each entry of the block: where it is, logit, whether positive, and weight, 0 if ignored."""
    entry = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = entry < size
    logit = tl.load(logits + entry * logit_stride, mask=inside, other=0).to(tl.float32)
    target = tl.load(targets + entry * target_stride, mask=inside, other=0)
    positive = inside & (target == 1)
    weight = tl.where(positive, alpha, tl.where(inside & (target == 0), 1 - alpha, 0.0))
    return entry, inside, logit, positive, weight


@triton.jit
def _log_probabilities(margin):
    """log sigmoid(margin) and log sigmoid(-margin), exact where either is near 0."""
    small = tl.exp(-tl.abs(margin))
    # log(1 + small) = 2 artanh(t) as its series, to the float32 precision that tl.log does not have near 1.
    t = small / (2 + small)
    s = t * t
    series = 1 + s * (1 / 3 + s * (1 / 5 + s * (1 / 7 + s * (1 / 9 + s * (1 / 11 + s * (1 / 13))))))
    rest = 2 * t * series
    return tl.minimum(margin, 0.0) - rest, tl.minimum(-margin, 0.0) - rest


@triton.jit(do_not_specialize=["num_blocks", "alpha", "gamma"])
def _focal_sum(logits, logit_stride, targets, target_stride, size, sums, num_blocks, alpha, gamma, BLOCK: tl.constexpr):
    """Loss and number of positives of each block; not finite if a logit is not."""
    _, _, logit, positive, weight = _load(logits, logit_stride, targets, target_stride, size, alpha, BLOCK)
    log_right, log_wrong = _log_probabilities(tl.where(positive, logit, -logit))
    # Eq. 5: -alpha_t (1 - p_t)^gamma log p_t; an infinite logit on the right side would go unseen without the last term
    loss = -weight * tl.exp(gamma * log_wrong) * log_right + 0 * logit
    block = tl.program_id(0)
    tl.store(sums + block, tl.sum(loss.to(tl.float64)))
    tl.store(sums + num_blocks + block, tl.sum(positive.to(tl.int32)).to(tl.float64))


@triton.jit(do_not_specialize=["alpha", "gamma"])
def _focal_gradient(
    logits, logit_stride, targets, target_stride, size, gradient, grad_total, alpha, gamma, BLOCK: tl.constexpr
):
    """d loss / d logit times the number at grad_total."""
    entry, inside, logit, positive, weight = _load(logits, logit_stride, targets, target_stride, size, alpha, BLOCK)
    log_right, log_wrong = _log_probabilities(tl.where(positive, logit, -logit))
    right, wrong = tl.exp(log_right), tl.exp(log_wrong)
    on_margin = weight * tl.exp(gamma * log_wrong) * (gamma * right * log_right - wrong)
    result = tl.load(grad_total).to(tl.float32) * tl.where(positive, on_margin, -on_margin)
    tl.store(gradient + entry, result.to(gradient.dtype.element_ty), mask=inside)
