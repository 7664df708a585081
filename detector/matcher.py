"""Which ground-truth box, if any, each anchor has to predict.

A: anchors of one image, all levels; G: its ground-truth boxes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from detector.boxes import box_center, pairwise_iou

NEGATIVE = -1
IGNORED = -2


class MaxIoUMatcher:
    """Matching by IoU thresholds, with at least one anchor for every object that any anchor touches.

    An anchor whose best box overlaps it by positive_iou or more is matched to that box, below negative_iou
    it is negative, in between ignored. After that, object by object in order, every anchor whose IoU equals
    the object's maximum exactly is matched to it, whatever it was before; an object whose maximum is 0 gets
    none. IoU is computed in float32, on which the exact ties depend.
    """

    def __init__(self, positive_iou: float = 0.5, negative_iou: float = 0.4) -> None:
        self.positive_iou = positive_iou
        self.negative_iou = negative_iou

    @torch.no_grad()
    def __call__(self, anchors_per_level: Sequence[Tensor], gt_boxes: Tensor) -> Tensor:
        """Match the anchors of one image.

        Args:
            anchors_per_level: list of (n, 4); gt_boxes: (G, 4).
        Returns:
            (A,) int64: index of the matched box, -1 negative, -2 ignored; all negative when G = 0.
        """
        anchors = torch.cat(list(anchors_per_level))
        if len(gt_boxes) == 0 or len(anchors) == 0:
            return anchors.new_full((len(anchors),), NEGATIVE, dtype=torch.int64)

        iou = pairwise_iou(gt_boxes.to(anchors.dtype), anchors)  # (G, A)
        best_iou, matches = iou.max(dim=0)
        matches[best_iou < self.positive_iou] = IGNORED
        matches[best_iou < self.negative_iou] = NEGATIVE

        highest = iou.amax(dim=1, keepdim=True)
        claims = (iou == highest) & (highest > 0)
        objects = torch.arange(len(gt_boxes), device=iou.device)[:, None]
        last_claim = torch.where(claims, objects, NEGATIVE).amax(dim=0)  # later objects win
        return torch.where(last_claim >= 0, last_claim, matches)


class ATSSMatcher:
    """Adaptive training sample selection (arXiv:1912.02424): one threshold per object, from its own IoUs.

    The anchors of each level with the nearest centres are the object's candidates. A candidate is positive
    if its IoU reaches mean + standard deviation (of all candidates, n - 1) and its centre lies inside the
    box by more than `min_inside` pixels. An anchor that several objects claim goes to the highest IoU.
    Nothing is ignored, and an object may get no anchor.

    Anchors that share a centre tie for the last candidate's place; there the choice is `torch.topk`'s.
    """

    def __init__(self, candidates_per_level: int = 9, min_inside: float = 0.01) -> None:
        self.candidates_per_level = candidates_per_level
        self.min_inside = min_inside

    @torch.no_grad()
    def __call__(self, anchors_per_level: Sequence[Tensor], gt_boxes: Tensor) -> Tensor:
        """Match the anchors of one image; arguments and result as of `MaxIoUMatcher`, without -2."""
        anchors = torch.cat(list(anchors_per_level))
        if len(gt_boxes) == 0 or len(anchors) == 0:
            return anchors.new_full((len(anchors),), NEGATIVE, dtype=torch.int64)

        gt_boxes = gt_boxes.to(anchors.dtype)
        candidates = self._candidates(anchors_per_level, gt_boxes)  # (C, G) anchor indices
        iou = pairwise_iou(anchors[candidates.T], gt_boxes[:, None]).squeeze(-1).T  # (C, G)
        threshold = iou.mean(dim=0) + iou.std(dim=0, correction=min(1, len(iou) - 1))
        centers = box_center(anchors)[candidates]  # (C, G, 2)
        margins = torch.cat([centers - gt_boxes[:, :2], gt_boxes[:, 2:] - centers], dim=-1)
        positive = (iou >= threshold) & (margins.amin(dim=-1) > self.min_inside)

        claimed_iou = iou.new_full((len(anchors), len(gt_boxes)), -1.0)
        claimed_iou.scatter_(0, candidates, torch.where(positive, iou, -1.0))
        best_iou, matches = claimed_iou.max(dim=1)
        return torch.where(best_iou >= 0, matches, NEGATIVE)

    def _candidates(self, anchors_per_level: Sequence[Tensor], gt_boxes: Tensor) -> Tensor:
        """(C, G) flat indices of the anchors nearest to each object, level by level."""
        gt_centers = box_center(gt_boxes)
        candidates, first = [], 0
        for anchors in anchors_per_level:
            # the square root stays: it rounds, and so creates the ties that topk then breaks
            distance = (box_center(anchors)[:, None] - gt_centers).square().sum(dim=-1).sqrt()  # (n, G)
            count = min(self.candidates_per_level, len(anchors))
            candidates.append(distance.topk(count, dim=0, largest=False).indices + first)
            first += len(anchors)
        return torch.cat(candidates)
