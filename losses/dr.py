"""Distributional Ranking Loss (Qian et al., arXiv 1907.10156v3): ranks one expected score above another.

The paper ranks within each image; the released code within the images of a process, which is followed.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.distributed as dist
from torch import Tensor

from .box_loss import BoxLoss, box_loss
from .compiling import breaks_graph
from .entries import positive_entries, require_flat
from .finite import nan_unless_finite
from .group_sums import require_group, sum_over_group
from .loss import Loss, LossSettings, require_positive, weighted_sum
from .matched import Matched
from .precision import at_least_float32

NEGATIVE_LAMBDA = 0.1 / math.log(3.5)  # released code: h = 3.5 in the paper's section 4.1
MARGIN = 0.5


@breaks_graph
def dr_loss(
    logits: Tensor,
    targets: Tensor,
    group: dist.ProcessGroup | None = None,
    *,
    positive_lambda: float = 1.0,
    negative_lambda: float = NEGATIVE_LAMBDA,
    steepness: float = 6.0,
    weight: float = 4.0,
    positives: Tensor | None = None,
) -> Tensor:
    """Logistic loss of the expected score of the negatives less that of the positives.

    Either expectation leans to what ranks wrongly: a negative counts by softmax(p / negative_lambda), a positive by
    softmax(-p / positive_lambda), p its sigmoid. Gradients flow through these too. The loss of a batch is not the
    mean of the losses of its images.

    Args:
        logits: (M,) any float dtype, before the sigmoid, of every anchor and class of the batch.
        targets: (M,) any integer, float or bool dtype: 1 positive, 0 negative, -1 or another value ignored.
        group: process group over whose batches to take both expectations; None for this process alone. The value is
            then the same on every process; backward gives each process d(value)/d(its own logits), unscaled.
        positive_lambda, negative_lambda: temperatures, > 0; the smaller, the more the worst entries count.
        steepness: L of the paper's Eq. 13, > 0.
        weight: τ of the released code, > 0; the loss is multiplied by it.
        positives: (P,) int64, as in `alrp_loss`.
    Returns:
        scalar > 0, float64 for float64 logits and float32 for others. Without a positive their expected score counts
        as 1, without a negative theirs as 0. NaN if any logit is not finite.
    Raises:
        ValueError: logits and targets are not both (M,).

    Example:
        Of two undecided entries neither counts more: 4/6 log(1 + exp(6 · (0.5 - 0.5 + 0.5))).

        >>> logits = torch.zeros(3, requires_grad=True)
        >>> loss = dr_loss(logits, torch.tensor([1, 0, -1]))
        >>> round(loss.item(), 4)
        2.0324
        >>> loss.backward()
        >>> [round(g, 4) for g in logits.grad.tolist()]
        [-0.9526, 0.9526, 0.0]
    """
    require_flat(logits, targets)
    require_group(group)
    logits = at_least_float32(logits)
    probabilities = logits.sigmoid()
    negative = targets == 0
    entries = positive_entries(targets) if positives is None else positives
    positive = probabilities[entries]

    # The worst score of either side: what its exponentials are taken relative to, which cancels in the end.
    worst = torch.stack([_largest(probabilities.detach().where(negative, 0)), _largest(1 - positive.detach())])
    if group is not None:
        dist.all_reduce(worst, dist.ReduceOp.MAX, group)
    relative = (probabilities - worst[0]) / negative_lambda
    negative_exp = relative.masked_fill(~negative, -torch.inf).exp()
    positive_exp = ((1 - positive - worst[1]) / positive_lambda).exp()
    sums = [negative_exp, negative_exp * probabilities, positive_exp, positive_exp * positive]
    joined = torch.stack([values.sum().double() for values in sums])
    negative_sum, negative_score, positive_sum, positive_score = sum_over_group(
        joined + nan_unless_finite(logits.detach()), group
    ).unbind()

    # A side that has entries has a sum of at least 1, of its worst one.
    mean_negative = negative_score / negative_sum.clamp(min=0.5)
    mean_positive = positive_score / positive_sum.clamp(min=0.5) + (positive_sum == 0)
    excess = steepness * (mean_negative - mean_positive + MARGIN)
    return (weight / steepness * torch.logaddexp(excess, torch.zeros_like(excess))).to(logits.dtype)


def _largest(values: Tensor) -> Tensor:
    """Of values from 0 on; 0 where there are none."""
    return values.amax() if len(values) else values.new_zeros(())


@dataclass(frozen=True, kw_only=True)
class DRSettings(LossSettings):
    """Settings of DR Loss with a box loss beside it; the defaults are those of the released code."""

    label: ClassVar[str] = "DR"
    hyper_parameters: ClassVar[tuple[str, ...]] = (
        "positive_lambda",
        "negative_lambda",
        "steepness",
        "weight",
        "smooth_l1_beta",
    )
    ranks: ClassVar[bool] = False
    update_ratios: ClassVar[tuple[float, float]] = (5e-4, 1.4e-3)  # as of focal loss: 7.1e-4, and 1.7e-3 at 20 times
    # Undecided before training, nothing ignored between positives and negatives, and scores that end up higher.
    model_defaults: ClassVar[Mapping[str, Any]] = {"prior": 0.5, "background_iou": 0.5, "score_thresh": 0.2}

    name: Literal["dr"] = "dr"
    box_loss: BoxLoss = "smooth_l1"
    """Localisation part: Smooth L1 of the offsets, or 1 - IoU, DIoU, GIoU or -ln IoU of the boxes."""
    smooth_l1_beta: float = 0.11
    """Offset error where Smooth L1, if it is the `box_loss`, turns from quadratic to linear, > 0."""
    positive_lambda: float = 1.0
    """Temperature of the weights of positives, > 0; the smaller, the more the lowest count."""
    negative_lambda: float = NEGATIVE_LAMBDA
    """Temperature of the weights of negatives, > 0; the smaller, the more the highest count."""
    steepness: float = 6.0
    """How sharply the logistic function bends, > 0."""
    weight: float = 4.0
    """Weight of the classification part, > 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "smooth_l1_beta", "positive_lambda", "negative_lambda", "steepness", "weight")


class DRLoss(Loss):
    """DR Loss of a head, and the mean box loss of its positives."""

    Settings = DRSettings
    settings: DRSettings

    def of_matched(self, matched: Matched, group: dist.ProcessGroup | None = None) -> dict[str, Tensor]:
        settings = self.settings
        loss_cls = dr_loss(
            matched.logits,
            matched.targets,
            group,
            positive_lambda=settings.positive_lambda,
            negative_lambda=settings.negative_lambda,
            steepness=settings.steepness,
            weight=settings.weight,
            positives=matched.entries,
        )
        return weighted_sum(loss_cls, box_loss(matched, settings.box_loss, group, settings.smooth_l1_beta))
