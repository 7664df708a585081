"""Sigmoid focal loss (Lin et al., arXiv 1708.02002), the baseline of dense detectors."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from . import triton_support
from .box_loss import BoxLoss, box_loss
from .entries import require_flat
from .finite import nan_unless_finite
from .group_sums import ratio_over_group
from .loss import Loss, LossSettings, require_from_zero, require_share, weighted_sum
from .matched import Matched
from .precision import at_least_float32

# Losses are summed in this unit, so that the sum of large ones is finite until the number of positives divides it.
# A power of two rounds nothing.
UNIT = 2.0**32


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
        targets: (M,) any integer, float or bool dtype: 1 positive, 0 negative, -1 or another value ignored.
        alpha: weight of the positives, 1 - alpha that of the negatives; 0..1.
        gamma: focusing exponent, >= 0.
        group: process group to sum and to count positives over; None for this process alone. The value is then the
            same on every process; backward gives each process d(value)/d(its own logits), unscaled.
    Returns:
        scalar >= 0, float64 for float64 logits and float32 for others; not finite if any logit is not.
    Raises:
        ValueError: logits and targets are not both (M,).

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
    require_flat(logits, targets)
    if logits.dtype != torch.float64 and triton_support.usable(logits):
        from .focal_triton import FocalSum

        total, num_positives = FocalSum.apply(logits, targets, alpha, gamma)
        return ratio_over_group(total, num_positives, group).float()
    logits = at_least_float32(logits)
    positive = targets == 1
    margin = torch.where(positive, logits, -logits)  # log-odds of the right answer
    weight = alpha / UNIT * positive.to(logits.dtype) + (1 - alpha) / UNIT * (targets == 0)
    wrong = torch.sigmoid(-margin)
    if 0 < gamma < 1:
        wrong = wrong.clamp(min=torch.finfo(wrong.dtype).tiny)  # at 0 the power has no slope
    # Eq. 5: -alpha_t (1 - p_t)^gamma log p_t
    total = -(_Bounded.apply(weight * wrong**gamma) * F.logsigmoid(margin)).sum().double() * UNIT
    total = total + nan_unless_finite(logits.detach())  # an infinite logit on the right side would go unseen
    return ratio_over_group(total, positive.sum(), group).to(logits.dtype)


class _Bounded(torch.autograd.Function):
    """Identity with a finite gradient: log p_t of a large margin, times UNIT, meets a probability that has no slope."""

    @staticmethod
    def forward(ctx: Any, modulated: Tensor) -> Tensor:
        return modulated.view_as(modulated)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Tensor:
        return grad_output.clamp(-1e30, 1e30)


@dataclass(frozen=True, kw_only=True)
class FocalSettings(LossSettings):
    """Settings of focal loss with a box loss beside it; the defaults are the paper's."""

    label: ClassVar[str] = "focal"
    hyper_parameters: ClassVar[tuple[str, ...]] = ("alpha", "gamma")
    ranks: ClassVar[bool] = False
    update_ratios: ClassVar[tuple[float, float]] = (5e-4, 1.4e-3)

    name: Literal["focal"] = "focal"
    box_loss: BoxLoss = "smooth_l1"
    """Localisation part: Smooth L1 of the offsets, or 1 - IoU, DIoU, GIoU or -ln IoU of the boxes."""
    alpha: float = 0.25
    """Weight of the positives, 0..1; 1 - alpha is that of the negatives."""
    gamma: float = 2.0
    """Focusing exponent, >= 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_share(self, "alpha")
        require_from_zero(self, "gamma")


class FocalLoss(Loss):
    """Focal loss of a head, and the mean box loss of its positives."""

    Settings = FocalSettings
    settings: FocalSettings

    def of_matched(self, matched: Matched, group: dist.ProcessGroup | None = None) -> dict[str, Tensor]:
        settings = self.settings
        loss_cls = focal_loss(matched.logits, matched.targets, settings.alpha, settings.gamma, group)
        return weighted_sum(loss_cls, box_loss(matched, settings.box_loss, group))
