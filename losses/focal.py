"""Focal loss (arXiv 1708.02002)."""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor


def focal_loss(
    logits: Tensor,
    targets: Tensor,
    alpha: float = 0.25,
    gamma: float = 2.0,
    group: dist.ProcessGroup | None = None,
) -> Tensor:
    """Sigmoid focal loss, summed and divided by max(1, P)."""
    if logits.dtype != torch.float64:
        logits = logits.float()
    positive = targets == 1
    margin = torch.where(positive, logits, -logits)  # log-odds of the right answer
    weight = torch.where(positive, alpha, (1 - alpha) * (targets == 0))
    total = -(weight * torch.sigmoid(-margin) ** gamma * F.logsigmoid(margin)).sum()
    return mean_over_positives(total, positive.sum(), group)


def mean_over_positives(total: Tensor, num_positives: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """total / max(1, num_positives), both summed over the group; the gradient is that of one's own total."""
    if group is None:
        return total / num_positives.clamp(min=1)
    joined = torch.stack([total.detach().double(), num_positives.double()])
    dist.all_reduce(joined, group=group)
    num_positives = joined[1].clamp(min=1)
    own = total.double() / num_positives
    return (joined[0] / num_positives + (own - own.detach())).to(total.dtype)
