"""FreeAnchor (Zhang et al., arXiv 1909.02466): the anchors near an object compete to explain it.

Nothing is matched in advance, so objects and all predictions have to be seen together: `detector.objectives.FreeAnchor`
makes of them what the functions here take. Where the paper and its released code differ, the code is followed.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .finite import nan_unless_finite
from .group_sums import ratio_over_group
from .loss import Loss, LossSettings, require_from_zero, require_positive, require_share

CERTAIN = 1e-12  # least doubt 1 - q by which a member of a bag is weighed


def bag_losses(log_likelihoods: Tensor) -> Tensor:
    """-ln Mean-max of each bag: near the mean of its likelihoods q while all are small, near the largest later.

    Mean-max weighs every member by 1 / (1 - q) (Eq. 7 and 8); gradients flow through these weights too. Computed from
    logarithms, so that a bag that explains nothing still has a gradient, where the released code has none.

    Args:
        log_likelihoods: (N, n) float32 or float64, ln q <= 0 of each of the n anchors in the bags of N objects.
    Returns:
        (N,) >= 0.
    """
    log_weights = -(-torch.expm1(log_likelihoods)).clamp(min=CERTAIN).log()
    return log_weights.logsumexp(dim=1) - (log_weights + log_likelihoods).logsumexp(dim=1)


def background_sum(logits: Tensor, contained: Tensor, gamma: float) -> Tensor:
    """Σ z^γ · -ln(1 - z) of z = p (1 - contained), the probability of a detection that no object explains (Eq. 9).

    Args:
        logits: (M,) float32 or float64, before the sigmoid that gives p.
        contained: (M,) in [0, 1], how surely the entry belongs to an object; no gradient flows through it.
        gamma: focusing exponent, >= 0.
    Returns:
        scalar >= 0, float64; NaN if any logit is not finite.
    """
    total: Tensor = _BackgroundSum.apply(logits, contained, gamma)
    return total + nan_unless_finite(logits.detach())


class _BackgroundSum(torch.autograd.Function):
    """The sum, with its gradient worked out at once: recording every step would keep several times the memory."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, contained: Tensor, gamma: float) -> Tensor:
        wrong, right = logits.sigmoid(), (-logits).sigmoid()
        z = wrong * (1 - contained)
        free = contained == 0
        rest = torch.where(free, right, right + wrong * contained)  # 1 - z, without its cancellation
        surprise = torch.where(free, -F.logsigmoid(-logits), -rest.log())  # -ln(1 - z), finite for any logit
        modulation = z**gamma
        # With dz/dlogit = z · right, where right / (1 - z) is 1 for an entry of no object.
        slope = gamma * (surprise * right) + z * torch.where(free, 1, right / rest)
        ctx.save_for_backward(modulation * slope)
        return (modulation * surprise).sum(dtype=torch.float64)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad_output.to(gradient.dtype), None, None


@dataclass(frozen=True, kw_only=True)
class FreeAnchorSettings(LossSettings):
    """Settings of FreeAnchor; the defaults are those of its released code."""

    label: ClassVar[str] = "FreeAnchor"
    hyper_parameters: ClassVar[tuple[str, ...]] = (
        "alpha",
        "beta",
        "gamma",
        "smooth_l1_beta",
        "bag_size",
        "min_iou",
    )
    ranks: ClassVar[bool] = False
    update_ratios: ClassVar[tuple[float, float]] = (5e-4, 1.4e-3)  # as of focal loss: 7.6e-4, and 2.0e-3 at 20 times
    unused_model_keys: ClassVar[tuple[str, ...]] = ("matcher", "background_iou")

    name: Literal["freeanchor"] = "freeanchor"
    alpha: float = 0.5
    """Weight of the part of the objects, 0..1; 1 - alpha is that of the background."""
    beta: float = 0.75
    """Weight of Smooth L1 in an anchor's likelihood of explaining an object, > 0."""
    gamma: float = 2.0
    """Focusing exponent of the background, >= 0."""
    smooth_l1_beta: float = 0.11
    """Offset error where Smooth L1 turns from quadratic to linear, > 0."""
    bag_size: int = 50
    """Anchors that compete for an object, those of the highest IoU, >= 1."""
    min_iou: float = 0.6
    """IoU of a predicted box with an object from which on it belongs to it, to some degree, 0..1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "beta", "smooth_l1_beta")
        require_share(self, "alpha")
        require_from_zero(self, "gamma")
        if self.bag_size < 1:
            raise ValueError(f"bag_size must be at least 1, got {self.bag_size}")
        if not 0 <= self.min_iou < 1:
            raise ValueError(f"min_iou must be from 0 on and below 1, got {self.min_iou}")


class FreeAnchorLoss(Loss):
    """The two parts of FreeAnchor, of a head that matches nothing in advance."""

    Settings = FreeAnchorSettings
    settings: FreeAnchorSettings

    def of_bags(
        self, log_likelihoods: Tensor, background: Tensor, group: dist.ProcessGroup | None = None
    ) -> dict[str, Tensor]:
        """Parts of the loss of a batch.

        Args:
            log_likelihoods: (N, n) of the bags of its N objects, see `bag_losses`.
            background: scalar, `background_sum` of its entries.
            group: process group over whose batches to sum and to count objects; None for this process alone.
        Returns:
            scalars of the dtype of log_likelihoods: "loss", to differentiate, "loss_positive" and "loss_negative".
            Without objects the former part is 0 and attached to the graph, the latter the plain sum.
        """
        settings, total = self.settings, bag_losses(log_likelihoods).sum()
        objects = total.new_full((), len(log_likelihoods))
        positive = ratio_over_group(total, objects, group)
        negative = ratio_over_group(background, settings.bag_size * objects, group)
        loss_positive = settings.alpha * positive
        loss_negative = (1 - settings.alpha) * negative.to(positive.dtype)
        return {"loss": loss_positive + loss_negative, "loss_positive": loss_positive, "loss_negative": loss_negative}
