"""Which ground-truth box, if any, each anchor has to predict.

A: anchors of one image, all levels; G: its ground-truth boxes. Both matchers take one image's boxes (G, 4), or those of
several images at once (B, G, 4), padded with rows of zeros: a box without area matches nothing. However many objects
an image has, memory is bounded: they are taken in chunks, from which each anchor remembers the best so far.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from detector.boxes import pair_chunks, pairwise_iou
from losses.overlaps import box_center

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
        """Match the anchors of one image, or of every image of a batch.

        Args:
            anchors_per_level: list of (n, 4); gt_boxes: (G, 4) or (B, G, 4).
        Returns:
            (A,) or (B, A) int64: index of the matched box, -1 negative, -2 ignored; all negative when G = 0.
        """
        anchors = torch.cat(list(anchors_per_level))
        boxes = _batch(gt_boxes.to(anchors.dtype))  # (B, G, 4)
        best = _Best(len(boxes), anchors)
        last_claim = best.matches.to(torch.int32)
        for images, objects in pair_chunks(boxes, len(anchors)):
            iou = pairwise_iou(boxes[images, objects], anchors)  # (b, g, A)
            best.update(images, objects, iou)

            highest = iou.amax(dim=-1, keepdim=True)
            claims = iou == torch.where(highest > 0, highest, torch.inf)
            numbers = torch.arange(objects.start, objects.stop, dtype=torch.int32, device=iou.device)[:, None]
            claim = torch.where(claims, numbers, NEGATIVE).amax(dim=-2)  # later objects win
            last_claim[images] = torch.maximum(last_claim[images], claim)

        matches = best.matches.masked_fill(best.iou < self.positive_iou, IGNORED)
        matches.masked_fill_(best.iou < self.negative_iou, NEGATIVE)
        matches = torch.where(last_claim >= 0, last_claim, matches)
        return matches.view(*gt_boxes.shape[:-2], len(anchors))


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
        """Match the anchors; arguments and result as of `MaxIoUMatcher`, without -2."""
        anchors = torch.cat(list(anchors_per_level))
        boxes = _batch(gt_boxes.to(anchors.dtype))  # (B, G, 4)
        best = _Best(len(boxes), anchors)
        for images, objects in pair_chunks(boxes, len(anchors)):
            best.update(images, objects, self._claims(anchors_per_level, anchors, boxes[images, objects]))
        matches = torch.where(best.iou >= 0, best.matches, NEGATIVE)
        return matches.view(*gt_boxes.shape[:-2], len(anchors))

    def _claims(self, anchors_per_level: Sequence[Tensor], anchors: Tensor, gt_boxes: Tensor) -> Tensor:
        """(..., G, A) IoU of each object with the anchors that are positive for it, -1 with the others."""
        candidates = self._candidates(anchors_per_level, gt_boxes)  # (..., G, C) anchor indices
        iou = pairwise_iou(anchors[candidates], gt_boxes.unsqueeze(-2)).squeeze(-1)  # (..., G, C)
        spread = iou.std(dim=-1, keepdim=True, correction=min(1, iou.shape[-1] - 1))
        threshold = iou.mean(dim=-1, keepdim=True) + spread
        centers = box_center(anchors)[candidates]  # (..., G, C, 2)
        corners = gt_boxes.unsqueeze(-2)
        margins = torch.cat([centers - corners[..., :2], corners[..., 2:] - centers], dim=-1)
        positive = (iou >= threshold) & (margins.amin(dim=-1) > self.min_inside)
        claimed_iou = iou.new_full((*iou.shape[:-1], len(anchors)), -1.0)
        return claimed_iou.scatter_(-1, candidates, torch.where(positive, iou, -1.0))

    def _candidates(self, anchors_per_level: Sequence[Tensor], gt_boxes: Tensor) -> Tensor:
        """(..., G, C) flat indices of the anchors nearest to each object, level by level."""
        gt_centers = box_center(gt_boxes).unsqueeze(-2)
        candidates, first = [], 0
        for anchors in anchors_per_level:
            # the square root stays: it rounds, and so creates the ties that topk then breaks
            distance = (box_center(anchors) - gt_centers).square().sum(dim=-1).sqrt()  # (..., G, n)
            count = min(self.candidates_per_level, len(anchors))
            candidates.append(distance.topk(count, dim=-1, largest=False).indices + first)
            first += len(anchors)
        return torch.cat(candidates, dim=-1)


class _Best:
    """The object with which each anchor has the highest IoU, the first of equal ones: iou and matches, (B, A)."""

    def __init__(self, num_images: int, anchors: Tensor) -> None:
        self.iou = anchors.new_full((num_images, len(anchors)), -1.0)
        self.matches = torch.full_like(self.iou, NEGATIVE, dtype=torch.int64)

    def update(self, images: slice, objects: slice, iou: Tensor) -> None:
        """Takes in further objects of some images, (b, g, A)."""
        best_iou, matches = iou.max(dim=-2)
        better = best_iou > self.iou[images]
        self.iou[images] = torch.where(better, best_iou, self.iou[images])
        self.matches[images] = torch.where(better, matches + objects.start, self.matches[images])


def _batch(gt_boxes: Tensor) -> Tensor:
    return gt_boxes if gt_boxes.dim() == 3 else gt_boxes[None]
