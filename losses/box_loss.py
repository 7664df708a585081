"""Localisation parts of losses that treat boxes apart from scores: Smooth L1 of offsets, or 1 - overlap of boxes."""

from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor

from .group_sums import ratio_over_group
from .matched import Matched
from .smooth_l1 import smooth_l1_loss

BoxLoss = Literal["smooth_l1", "iou", "diou", "giou"]


def box_loss(matched: Matched, kind: BoxLoss, group: dist.ProcessGroup | None, beta: float = 1.0) -> Tensor:
    """Mean over the positives of the group, 0 with a zero gradient if there is none; beta is that of Smooth L1."""
    if kind == "smooth_l1":
        return smooth_l1_loss(matched.pred_deltas, matched.encode_targets(), beta, group)
    return overlap_loss(matched.overlaps(kind), torch.ones_like(matched.pred_boxes[:, 0]), group)


def overlap_loss(overlaps: Tensor, weights: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """Mean of 1 - overlap, weighted by (P,) weights >= 0; 0 with a zero gradient where they add up to 0."""
    errors = 1 - overlaps
    return ratio_over_group((weights * errors).sum(), weights.sum(), group, at_least=1e-10)
