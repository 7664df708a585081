"""The loss of CenterNet (Duan et al., arXiv 1904.08189): heat maps of keypoints, tags that pair corners, offsets.

B images, N objects of all of them, K classes; three maps: top left and bottom right corners, and centres. Parts follow
the released code, where the paper leaves them open.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from .finite import nan_unless_finite
from .group_sums import sum_over_group
from .loss import Loss, LossSettings, require_from_zero, require_positive

MIN_PROBABILITY = 1e-4  # probabilities are held so far from 0 and 1; beyond there is no gradient
EPS = 1e-4  # added to numbers of objects, and of pairs of them, that divide


@dataclass(frozen=True)
class Keypoints:
    """Predictions of a batch beside what they should be; corners and centres in the order of the maps.

    Attributes:
        logits, heat: (B, 3, K, h, w) float32 or float64; heat in 0..1, 1 in the cell of a keypoint, -1 ignored.
        tags: (N, 2), predicted at the two corners of each object.
        pred_offsets, offsets: (N, 3, 2), predicted at the three keypoints of each object, and right.
        image: (N,) int64, which image each object is in.
    """

    logits: Tensor
    heat: Tensor
    tags: Tensor
    pred_offsets: Tensor
    offsets: Tensor
    image: Tensor


@dataclass(frozen=True, kw_only=True)
class CenterNetSettings(LossSettings):
    """Settings of the loss of CenterNet; the defaults are those of the released code."""

    label: ClassVar[str] = "keypoints"
    hyper_parameters: ClassVar[tuple[str, ...]] = (
        "gamma",
        "beta",
        "pull_weight",
        "push_weight",
        "margin",
        "offset_weight",
    )
    ranks: ClassVar[bool] = False
    update_ratios: ClassVar[tuple[float, float]] = (5e-4, 1.4e-3)  # of focal loss; not measured with this one

    name: Literal["centernet"] = "centernet"
    gamma: float = 2.0
    """Focusing exponent of the heat maps, >= 0."""
    beta: float = 4.0
    """Exponent of 1 - heat, by which the cells around a keypoint count less as negatives, >= 0."""
    pull_weight: float = 0.1
    """Weight of what pulls the tags of an object's corners together, >= 0."""
    push_weight: float = 0.1
    """Weight of what pushes the tags of different objects apart, >= 0."""
    margin: float = 1.0
    """Distance of tags from which on they are not pushed, > 0."""
    offset_weight: float = 1.0
    """Weight of the offsets within cells, >= 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_from_zero(self, "gamma", "beta", "pull_weight", "push_weight", "offset_weight")
        require_positive(self, "margin")


class CenterNetLoss(Loss):
    """Focal loss of three heat maps, pull and push of tags, and Smooth L1 of offsets. It compares keypoints, not boxes
    that a head has matched."""

    Settings = CenterNetSettings
    settings: CenterNetSettings

    def of_keypoints(self, keypoints: Keypoints, group: dist.ProcessGroup | None = None) -> dict[str, Tensor]:
        """Parts of the loss of a batch, see `Loss.of_matched`: "loss", "loss_cls" (heat maps), "loss_pull", "loss_push"
        and "loss_loc" (offsets).

        Pull and push are sums over the images of all processes in `group`, not means.
        """
        settings = self.settings
        tags, num_images = keypoints.tags, len(keypoints.logits)
        pull, push = sum_over_group(
            torch.stack(pull_and_push(tags, keypoints.image, num_images, settings.margin)), group
        )
        parts = {
            "loss_cls": heat_map_loss(keypoints.logits, keypoints.heat, settings.gamma, settings.beta, group),
            "loss_pull": pull,
            "loss_push": push,
            "loss_loc": offset_loss(keypoints.pred_offsets, keypoints.offsets, group),
        }
        weights = (1.0, settings.pull_weight, settings.push_weight, settings.offset_weight)
        loss = sum(weight * part for weight, part in zip(weights, parts.values(), strict=True))
        assert isinstance(loss, Tensor)
        return {"loss": loss, **parts}


def heat_map_loss(
    logits: Tensor, heat: Tensor, gamma: float = 2.0, beta: float = 4.0, group: dist.ProcessGroup | None = None
) -> Tensor:
    """Focal loss of heat maps, each divided by its number of keypoints, added up over the maps (CornerNet,
    arXiv 1808.01244, Eq. 1).

    Args:
        logits, heat: see `Keypoints`.
        group: process group to sum and to count keypoints over; None for this process alone.
    Returns:
        scalar >= 0; a map without keypoints is not divided. NaN if a logit is not finite.
    """
    positive = heat == 1
    scores = logits.sigmoid().clamp(MIN_PROBABILITY, 1 - MIN_PROBABILITY)
    # of a positive the score, of a negative what is left of 1: the probability of being right
    right = torch.where(positive, scores, 1 - scores)
    # heat 1 gives no weight as a negative, and neither does what is ignored
    weight = torch.where(positive, 1.0, (1 - heat) ** beta * (heat >= 0))
    totals = -(weight * (1 - right) ** gamma * right.log()).sum(dim=(0, 2, 3, 4))  # (3,)
    totals = totals + nan_unless_finite(logits.detach().flatten()).to(totals.dtype)  # which the clamp would hide
    counts = positive.sum(dim=(0, 2, 3, 4)).to(totals.dtype)
    totals, counts = sum_over_group(torch.stack([totals, counts]), group)
    return (totals / counts.clamp(min=1)).sum()


def pull_and_push(tags: Tensor, image: Tensor, num_images: int, margin: float = 1.0) -> tuple[Tensor, Tensor]:
    """What keeps the tags of an object's corners together and those of an image's objects apart (arXiv 1808.01244,
    Eqs. 4 and 5), summed over the images.

    Args:
        tags: (N, 2), image: (N,) see `Keypoints`. num_images: B.
    Returns:
        two scalars, 0 without objects. As in the released code an object is among those from which it is pushed, for
        which 1 / n is taken off every pair: one object alone costs about 1, without a gradient.
    """
    counts = image.bincount(minlength=num_images).to(tags.dtype)[image]  # (N,) objects of the image of each
    mean = tags.mean(dim=1)
    pull = ((tags - mean[:, None]).square().sum(dim=1) / (counts + EPS)).sum()
    same_image = image[:, None] == image
    closeness = (margin - (mean[:, None] - mean).abs()).relu() - 1 / (counts + EPS)
    push = torch.where(same_image, closeness / (counts * (counts - 1) + EPS), 0).sum()
    return pull, push


def offset_loss(pred: Tensor, target: Tensor, group: dist.ProcessGroup | None = None) -> Tensor:
    """Smooth L1, cut-off 1, of offsets (N, 3, 2), summed over maps and coordinates, over the N of the group."""
    total = F.smooth_l1_loss(pred, target.to(pred.dtype), reduction="sum")
    total, count = sum_over_group(torch.stack([total, total.new_full((), len(pred))]), group)
    return total / (count + EPS)
