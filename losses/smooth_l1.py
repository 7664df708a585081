"""Smooth L1 loss of box deltas (Girshick, arXiv 1504.08083, Eq. 3)."""

import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from .group_sums import ratio_over_group
from .precision import at_least_float32


def smooth_l1_loss(pred: Tensor, target: Tensor, beta: float = 1.0, group: dist.ProcessGroup | None = None) -> Tensor:
    """Smooth L1 of the positives' box deltas, summed and divided by 4 max(1, P).

    Args:
        pred: (P, 4) any float dtype, box deltas of the positives.
        target: (P, 4) float, the deltas they should be.
        beta: where the loss turns from quadratic to linear, >= 0.
        group: process group to sum and to count positives over; None for this process alone. The value is then the
            same on every process; backward gives each process d(value)/d(its own pred), unscaled.
    Returns:
        scalar >= 0, float64 for a float64 pred and float32 for others; 0 with a zero gradient if P = 0.
    Raises:
        ValueError: pred and target have not one shape.

    Example:
        Quadratic below beta, linear above: (0.5 * 0.4**2 + 2 - 0.5) / 4.

        >>> import torch
        >>> round(smooth_l1_loss(torch.tensor([[0.4, 0.0, 0.0, 2.0]]), torch.zeros(1, 4)).item(), 4)
        0.395
    """
    if pred.shape != target.shape:
        raise ValueError(f"pred and target must have one shape, got {tuple(pred.shape)} and {tuple(target.shape)}")
    pred = at_least_float32(pred)
    total = F.smooth_l1_loss(pred, target.to(pred.dtype), beta=beta, reduction="sum") / 4
    return ratio_over_group(total, total.new_full((), len(pred)), group)
