"""Cross entropy of heads whose classes exclude each other, and the box loss beside it, as of Faster R-CNN."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from .box_loss import BoxLoss, box_errors
from .finite import nan_unless_finite
from .group_sums import ratio_over_group
from .loss import Loss, LossSettings, require_from_zero, require_positive, weighted_sum
from .matched import Matched
from .precision import at_least_float32

UNSEEN = -100  # label of a row that F.cross_entropy leaves out


def cross_entropy_loss(
    logits: Tensor, targets: Tensor, entries: Tensor, num_classes: int, group: dist.ProcessGroup | None = None
) -> Tensor:
    """Cross entropy of the softmax over K classes and background, the mean over rows of K entries.

    A row without a positive is background; one with an ignored entry is left out. With K = 1 it is the binary cross
    entropy of a sigmoid.

    Args:
        logits: (M,) float32 or float64, row by row of K = num_classes: those of the classes less that of background.
        targets: (M,) 1 positive, at most one a row, 0 negative, -1 ignored.
        entries: (P,) int64, indices of the targets that are 1.
        group: process group to sum and to count rows over; None for this process alone. The value is then the same on
            every process; backward gives each process d(value)/d(its own logits), unscaled.
    Returns:
        scalar >= 0, float64 for float64 logits and float32 for others; 0 with a zero gradient if all is ignored, and
        NaN if any logit is not finite.

    Example:
        The first row is of its second class, the second of background: (ln 3 + ln (2 + e²) - 0) / 2.

        >>> logits = torch.tensor([0.0, 0.0, 2.0, 0.0])
        >>> targets = torch.tensor([0, 1, 0, 0])
        >>> round(cross_entropy_loss(logits, targets, torch.tensor([1]), 2).item(), 4)
        1.6691
    """
    logits = at_least_float32(logits)
    rows = F.pad(logits.view(-1, num_classes), (1, 0))  # background first
    labels = torch.zeros_like(rows[:, 0], dtype=torch.int64)
    labels[entries // num_classes] = entries % num_classes + 1
    labels = labels.masked_fill((targets.view(-1, num_classes) < 0).any(dim=1), UNSEEN)
    # the sum of large finite ones is finite in float64, until the number of rows divides it
    total = F.cross_entropy(rows, labels, ignore_index=UNSEEN, reduction="none").double().sum()
    total = total + nan_unless_finite(logits.detach())
    return ratio_over_group(total, (labels != UNSEEN).sum(), group).to(logits.dtype)


@dataclass(frozen=True, kw_only=True)
class CESettings(LossSettings):
    """Settings of cross entropy with a box loss beside it; the defaults are MMDetection's of Faster R-CNN."""

    label: ClassVar[str] = "CE"
    hyper_parameters: ClassVar[tuple[str, ...]] = ("smooth_l1_beta", "box_weight")
    ranks: ClassVar[bool] = False
    softmax: ClassVar[bool] = True
    update_ratios: ClassVar[tuple[float, float]] = (5e-4, 1.4e-3)  # as of focal loss: 6.7e-4, and 1.3e-2 at 20 times

    name: Literal["ce"] = "ce"
    box_loss: BoxLoss = "smooth_l1"
    """Localisation part: Smooth L1 of the offsets, or 1 - IoU, DIoU, GIoU or -ln IoU of the boxes, in the last head."""
    smooth_l1_beta: float = 0.0
    """Offset error where Smooth L1 turns from quadratic to linear, >= 0; 0 is L1."""
    box_weight: float = 1.0
    """Weight of the localisation part, > 0; of the first head's too where `box_loss` is smooth_l1, else 1 there."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "box_weight")
        require_from_zero(self, "smooth_l1_beta")


class CELoss(Loss):
    """Cross entropy of a head; its box loss is summed over the positives and divided by all rows that count."""

    Settings = CESettings
    settings: CESettings

    def of_matched(self, matched: Matched, group: dist.ProcessGroup | None = None) -> dict[str, Tensor]:
        settings, num_classes = self.settings, matched.num_classes
        loss_cls = cross_entropy_loss(matched.logits, matched.targets, matched.entries, num_classes, group)
        counted = (matched.targets.view(-1, num_classes) >= 0).all(dim=1).sum()
        errors = box_errors(matched, settings.box_loss, settings.smooth_l1_beta)
        return weighted_sum(loss_cls, ratio_over_group(errors.sum(), counted, group), settings.box_weight)
