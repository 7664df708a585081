"""Overlaps of boxes in pairs: the one place of the IoU, GIoU and DIoU that localisation losses are made of.

Boxes are (x1, y1, x2, y2) in continuous pixels, x1 <= x2 and y1 <= y2. P: number of pairs.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

EPS = 1e-7  # pixels²; keeps quotients of degenerate boxes, and their gradients, finite


def box_area(boxes: Tensor) -> Tensor:
    """(..., 4) boxes to (...) areas, pixels²; 0 of a box that is inside out, as a free prediction may be."""
    return (boxes[..., 2] - boxes[..., 0]).clamp(min=0) * (boxes[..., 3] - boxes[..., 1]).clamp(min=0)


def box_center(boxes: Tensor) -> Tensor:
    """(..., 4) boxes to (..., 2) centres (x, y)."""
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def shared_area(boxes1: Sequence[Tensor], boxes2: Sequence[Tensor]) -> Tensor:
    """Areas, pixels², shared by boxes given as x1, y1, x2, y2, which broadcast against each other."""
    width = torch.minimum(boxes1[2], boxes2[2]) - torch.maximum(boxes1[0], boxes2[0])
    height = torch.minimum(boxes1[3], boxes2[3]) - torch.maximum(boxes1[1], boxes2[1])
    return width.clamp(min=0) * height.clamp(min=0)


def paired_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """IoU of boxes1[i] with boxes2[i]: (P, 4) twice to (P,) in [0, 1]; 0 where neither has an area."""
    return _iou_and_union(boxes1, boxes2)[0]


def paired_giou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Generalised IoU of boxes1[i] with boxes2[i]: (P, 4) twice to (P,) in [-1, 1].

    Source: Rezatofighi et al., arXiv:1902.09630, Algorithm 1.
    """
    iou, union = _iou_and_union(boxes1, boxes2)
    width, height = _hull_sizes(boxes1, boxes2).unbind(dim=1)
    hull_area = (width * height).clamp(min=EPS)  # the backward of torch.prod would wait for a GPU
    return iou - (hull_area - union) / hull_area


def paired_diou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Distance IoU of boxes1[i] with boxes2[i]: (P, 4) twice to (P,) in [-1, 1].

    Source: Zheng et al., arXiv:1911.08287, Eq. 6.
    """
    iou, _ = _iou_and_union(boxes1, boxes2)
    diagonal_sq = _hull_sizes(boxes1, boxes2).square().sum(dim=1).clamp(min=EPS)
    distance_sq = (box_center(boxes1) - box_center(boxes2)).square().sum(dim=1)
    return iou - distance_sq / diagonal_sq


def _iou_and_union(boxes1: Tensor, boxes2: Tensor) -> tuple[Tensor, Tensor]:
    intersection = shared_area(boxes1.unbind(dim=1), boxes2.unbind(dim=1))
    union = (box_area(boxes1) + box_area(boxes2) - intersection).clamp(min=EPS)
    return intersection / union, union


def _hull_sizes(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """(P, 2) width and height of the smallest box around boxes1[i] and boxes2[i]."""
    return torch.maximum(boxes1[:, 2:], boxes2[:, 2:]) - torch.minimum(boxes1[:, :2], boxes2[:, :2])
