"""Smooth L1 loss on box deltas (arXiv 1504.08083)."""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from losses.focal import mean_over_positives


def smooth_l1_loss(pred: Tensor, target: Tensor, beta: float = 1.0, group: dist.ProcessGroup | None = None) -> Tensor:
    """Smooth L1 of (P, 4) box deltas, summed and divided by 4 max(1, P), P over the group."""
    if pred.dtype != torch.float64:
        pred = pred.float()
    total = F.smooth_l1_loss(pred, target.to(pred.dtype), beta=beta, reduction="sum") / 4
    return mean_over_positives(total, torch.tensor(len(pred), device=pred.device), group)
