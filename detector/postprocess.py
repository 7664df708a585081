"""Network outputs to detections."""

from collections.abc import Sequence

import torch
from torch import Tensor

from detector.boxes import PAPER_CODING, BoxCoding, clip_boxes, decode_boxes
from detector.nms import batched_nms


class PostProcessor:
    """Best candidates of each level, decoded, clipped, and thinned out by NMS per class.

    Args:
        score_thresh: a detection scores more than this.
        topk_candidates: (anchor, class) entries that each level sends to NMS at most.
        nms_thresh: IoU above which the worse of two detections of one class goes.
        detections_per_img: how many remain at most.
        coding: of the boxes.
    """

    def __init__(
        self,
        score_thresh: float = 0.05,
        topk_candidates: int = 1000,
        nms_thresh: float = 0.5,
        detections_per_img: int = 100,
        coding: BoxCoding = PAPER_CODING,
    ) -> None:
        self.score_thresh = score_thresh
        self.topk_candidates = topk_candidates
        self.nms_thresh = nms_thresh
        self.detections_per_img = detections_per_img
        self.coding = coding

    @torch.no_grad()
    def __call__(
        self,
        cls_logits: Tensor,
        box_deltas: Tensor,
        anchors_per_level: Sequence[Tensor],
        image_sizes: Sequence[tuple[int, int]],
    ) -> list[dict[str, Tensor]]:
        """Detections of each image.

        Args:
            cls_logits: (B, A, K) and box_deltas: (B, A, 4), float32.
            anchors_per_level: list of (n, 4), together (A, 4).
            image_sizes: (h, w) to which the boxes of each image are clipped.
        Returns:
            Per image "boxes" (n, 4) xyxy, "scores" (n,), "labels" (n,) int64, best first; among equal
            scores, lower levels, rows, columns, anchors and classes first.
        """
        scores = cls_logits.sigmoid()
        return [
            self._detect(*outputs, anchors_per_level, image_size)
            for *outputs, image_size in zip(scores, box_deltas, image_sizes, strict=True)
        ]

    def _detect(
        self,
        scores: Tensor,
        box_deltas: Tensor,
        anchors_per_level: Sequence[Tensor],
        image_size: tuple[int, int],
    ) -> dict[str, Tensor]:
        num_classes = scores.shape[1]
        entries, first = [], 0
        for anchors in anchors_per_level:
            level_scores = scores[first : first + len(anchors)].flatten()
            entries.append(self._select(level_scores) + first * num_classes)
            first += len(anchors)
        entries = torch.cat(entries)
        anchor_index = entries.div(num_classes, rounding_mode="floor")
        labels = entries % num_classes
        scores = scores.flatten()[entries]
        anchors = torch.cat(list(anchors_per_level))[anchor_index]
        boxes = decode_boxes(box_deltas[anchor_index], anchors, self.coding)
        boxes = clip_boxes(boxes, image_size)
        keep = batched_nms(boxes, scores, labels, self.nms_thresh)[: self.detections_per_img]
        return {"boxes": boxes[keep], "scores": scores[keep], "labels": labels[keep]}

    def _select(self, scores: Tensor) -> Tensor:
        """Indices of the best entries above the threshold, best first, lower index first among equals."""
        candidates = (scores > self.score_thresh).nonzero().squeeze(1)
        if len(candidates) > self.topk_candidates:
            # topk breaks ties as it likes: take its lowest score only, and let the stable sort choose
            lowest = scores[candidates].topk(self.topk_candidates).values[-1]
            candidates = candidates[scores[candidates] >= lowest]
        best_first = scores[candidates].argsort(descending=True, stable=True)
        return candidates[best_first[: self.topk_candidates]]
