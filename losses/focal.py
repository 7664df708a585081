"""Sigmoid focal loss (Lin et al., arXiv 1708.02002), the baseline of dense detectors."""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from . import triton_support
from .group_sums import ratio_over_group


def focal_loss(
    logits: Tensor,
    targets: Tensor,
    alpha: float = 0.25,
    gamma: float = 2.0,
    group: dist.ProcessGroup | None = None,
) -> Tensor:
    """Focal loss, summed over positives and negatives and divided by max(1, P).

    Args:
        logits: (M,) any float dtype, before the sigmoid.
        targets: (M,) any integer, float or bool dtype: 1 positive, 0 negative, -1 ignored.
        alpha: weight of the positives, 1 - alpha that of the negatives; 0..1.
        gamma: focusing exponent, >= 0.
        group: process group to sum and to count positives over; None for this process alone. The value is then the
            same on every process; backward gives each process d(value)/d(its own logits), unscaled.
    Returns:
        scalar >= 0, float64 for float64 logits and float32 for others; not finite if any logit is not.

    Example:
        A positive, two negatives and an ignored entry, none decided: (0.25 + 2 * 0.75) / 4 * log 2.

        >>> logits = torch.zeros(4, requires_grad=True)
        >>> loss = focal_loss(logits, torch.tensor([1, 0, 0, -1]))
        >>> round(loss.item(), 4)
        0.3033
        >>> loss.backward()
        >>> [round(g, 4) for g in logits.grad.tolist()]
        [-0.0746, 0.2237, 0.2237, 0.0]
    """
    if logits.dtype != torch.float64 and triton_support.usable(logits):
        from .focal_triton import FocalSum

        total, num_positives = FocalSum.apply(logits, targets, alpha, gamma)
        return ratio_over_group(total, num_positives, group).float()
    logits = logits if logits.dtype == torch.float64 else logits.float()
    positive = targets == 1
    margin = torch.where(positive, logits, -logits)  # log-odds of the right answer
    weight = alpha * positive.to(logits.dtype) + (1 - alpha) * (targets == 0)
    # Eq. 5: -alpha_t (1 - p_t)^gamma log p_t
    total = -(weight * torch.sigmoid(-margin) ** gamma * F.logsigmoid(margin)).sum()
    total = total + 0 * logits.detach().sum()  # an infinite logit on the right side would go unseen
    return ratio_over_group(total, positive.sum(), group)
