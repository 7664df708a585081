"""Localisation parts of losses that treat boxes apart from scores: Smooth L1 of offsets, or from overlaps of boxes."""

from typing import Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from .group_sums import ratio_over_group
from .matched import Matched
from .smooth_l1 import smooth_l1_loss

BoxLoss = Literal["smooth_l1", "iou", "diou", "giou", "log_iou"]

MIN_IOU = 1e-6  # of which -ln IoU is taken at least: boxes apart have no other


def box_loss(matched: Matched, kind: BoxLoss, group: dist.ProcessGroup | None, beta: float = 1.0) -> Tensor:
    """Mean over the positives of the group, weighted by `matched.box_weights` but for Smooth L1, of which beta is.

    0 with a zero gradient if there is no positive. "log_iou" is -ln IoU (UnitBox, arXiv 1608.01471), the others
    1 - overlap.
    """
    if kind == "smooth_l1":
        return smooth_l1_loss(matched.pred_deltas, matched.encode_targets(), beta, group)
    weights = torch.ones_like(matched.pred_boxes[:, 0]) if matched.box_weights is None else matched.box_weights
    return weighted_mean(box_errors(matched, kind, beta), weights, group)


def box_errors(matched: Matched, kind: BoxLoss, beta: float) -> Tensor:
    """(P,) what the box of each positive costs; of Smooth L1 the sum over its four offsets."""
    if kind == "smooth_l1":
        return F.smooth_l1_loss(matched.pred_deltas, matched.encode_targets(), beta=beta, reduction="none").sum(dim=1)
    if kind == "log_iou":
        return -matched.overlaps("iou").clamp(min=MIN_IOU).log()
    return 1 - matched.overlaps(kind)


def weighted_mean(errors: Tensor, weights: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """Mean of (P,) errors by (P,) weights >= 0; 0 with a zero gradient where these add up to 0."""
    return ratio_over_group((weights * errors).sum(), weights.sum(), group, at_least=1e-10)
