"""Matchers tell each reference box which ground-truth box it has to predict, if any.

A: reference boxes of one image, all levels; G: its ground-truth boxes. Both matchers take one image's boxes (G, 4), or
those of several images at once (B, G, 4), padded with rows of zeros: a box without area matches nothing. Memory is
bounded however many objects an image has: matchers take them in chunks and keep the best so far of each reference box.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from detector.boxes import pair_chunks, pairwise_iou
from losses.overlaps import box_center

NEGATIVE = -1
IGNORED = -2


class MaxIoUMatcher:
    """Matches by IoU thresholds, and gives every object that any reference box touches at least one.

    A reference box whose best object overlaps it by positive_iou or more is matched to that object; below negative_iou
    it is negative, in between it is ignored. After that, object by object in order, every reference box whose IoU
    equals the object's maximum exactly is matched to it, whatever it was before; an object whose maximum is 0 gets
    none. IoU is computed in float32, and the exact ties depend on that.

    Args:
        positive_iou, negative_iou: the thresholds.
        best_from: IoU from which on an object's best reference boxes are matched to it, whatever positive_iou says; 0
            for any overlap, None for no such rule.
    """

    def __init__(self, positive_iou: float = 0.5, negative_iou: float = 0.4, best_from: float | None = 0.0) -> None:
        self.positive_iou = positive_iou
        self.negative_iou = negative_iou
        self.best_from = best_from

    @torch.no_grad()
    def __call__(self, references_per_level: Sequence[Tensor], gt_boxes: Tensor) -> Tensor:
        """Match the reference boxes of one image, or of every image of a batch.

        Args:
            references_per_level: list of (n, 4), or of (B, n, 4) where every image has its own.
            gt_boxes: (G, 4) or (B, G, 4).
        Returns:
            (A,) or (B, A) int64: index of the matched box, -1 negative, -2 ignored; all negative when G = 0.
        """
        references = torch.cat(list(references_per_level), dim=-2)
        boxes = _batch(gt_boxes.to(references.dtype))  # (B, G, 4)
        best = _Best(len(boxes), references)
        last_claim = best.matches.to(torch.int32)
        for images, objects in pair_chunks(boxes, references.shape[-2]):
            of_images = references if references.dim() == 2 else references[images]
            iou = pairwise_iou(boxes[images, objects], of_images)  # (b, g, A)
            best.update(images, objects, iou)
            if self.best_from is None:
                continue
            highest = iou.amax(dim=-1, keepdim=True)
            claims = iou == torch.where((highest > 0) & (highest >= self.best_from), highest, torch.inf)
            numbers = torch.arange(objects.start, objects.stop, dtype=torch.int32, device=iou.device)[:, None]
            claim = torch.where(claims, numbers, NEGATIVE).amax(dim=-2)  # later objects win
            last_claim[images] = torch.maximum(last_claim[images], claim)

        matches = best.matches.masked_fill(best.iou < self.positive_iou, IGNORED)
        matches.masked_fill_(best.iou < self.negative_iou, NEGATIVE)
        matches = torch.where(last_claim >= 0, last_claim, matches)
        return matches.view(*gt_boxes.shape[:-2], references.shape[-2])


class ATSSMatcher:
    """Adaptive training sample selection (arXiv:1912.02424): one threshold per object, from its own IoUs.

    An object's candidates are the reference boxes of each level whose centres are nearest. A candidate is positive
    if its IoU reaches mean + standard deviation (of all candidates, n - 1) and its centre lies inside the
    object by more than `min_inside` pixels. A reference box that several objects claim goes to the one of highest IoU.
    Nothing is ignored, and an object may get no reference box.

    Reference boxes that share a centre tie for the last candidate's place; there the choice is `torch.topk`'s.
    """

    def __init__(self, candidates_per_level: int = 9, min_inside: float = 0.01) -> None:
        self.candidates_per_level = candidates_per_level
        self.min_inside = min_inside

    @torch.no_grad()
    def __call__(self, references_per_level: Sequence[Tensor], gt_boxes: Tensor) -> Tensor:
        """Match the reference boxes; arguments and result as of `MaxIoUMatcher`, without -2."""
        references = torch.cat(list(references_per_level))
        boxes = _batch(gt_boxes.to(references.dtype))  # (B, G, 4)
        best = _Best(len(boxes), references)
        for images, objects in pair_chunks(boxes, len(references)):
            best.update(images, objects, self._claims(references_per_level, references, boxes[images, objects]))
        matches = torch.where(best.iou >= 0, best.matches, NEGATIVE)
        return matches.view(*gt_boxes.shape[:-2], len(references))

    def _claims(self, references_per_level: Sequence[Tensor], references: Tensor, gt_boxes: Tensor) -> Tensor:
        """(..., G, A) IoU of each object with the reference boxes that are positive for it, -1 with the others."""
        candidates = self._candidates(references_per_level, gt_boxes)  # (..., G, C) indices
        iou = pairwise_iou(references[candidates], gt_boxes.unsqueeze(-2)).squeeze(-1)  # (..., G, C)
        spread = iou.std(dim=-1, keepdim=True, correction=min(1, iou.shape[-1] - 1))
        threshold = iou.mean(dim=-1, keepdim=True) + spread
        centers = box_center(references)[candidates]  # (..., G, C, 2)
        corners = gt_boxes.unsqueeze(-2)
        margins = torch.cat([centers - corners[..., :2], corners[..., 2:] - centers], dim=-1)
        positive = (iou >= threshold) & (margins.amin(dim=-1) > self.min_inside)
        claimed_iou = iou.new_full((*iou.shape[:-1], len(references)), -1.0)
        return claimed_iou.scatter_(-1, candidates, torch.where(positive, iou, -1.0))

    def _candidates(self, references_per_level: Sequence[Tensor], gt_boxes: Tensor) -> Tensor:
        """(..., G, C) flat indices of the reference boxes nearest to each object, level by level."""
        gt_centers = box_center(gt_boxes).unsqueeze(-2)
        candidates, first = [], 0
        for references in references_per_level:
            # the square root stays: it rounds, and so creates the ties that topk then breaks
            distance = (box_center(references) - gt_centers).square().sum(dim=-1).sqrt()  # (..., G, n)
            count = min(self.candidates_per_level, len(references))
            candidates.append(distance.topk(count, dim=-1, largest=False).indices + first)
            first += len(references)
        return torch.cat(candidates, dim=-1)


class _Best:
    """The object with which each reference box has the highest IoU, the first of equals: iou and matches, (B, A)."""

    def __init__(self, num_images: int, references: Tensor) -> None:
        self.iou = references.new_full((num_images, references.shape[-2]), -1.0)
        self.matches = torch.full_like(self.iou, NEGATIVE, dtype=torch.int64)

    def update(self, images: slice, objects: slice, iou: Tensor) -> None:
        """Takes in further objects of some images, (b, g, A)."""
        best_iou, matches = iou.max(dim=-2)
        better = best_iou > self.iou[images]
        self.iou[images] = torch.where(better, best_iou, self.iou[images])
        self.matches[images] = torch.where(better, matches + objects.start, self.matches[images])


def _batch(gt_boxes: Tensor) -> Tensor:
    return gt_boxes if gt_boxes.dim() == 3 else gt_boxes[None]
