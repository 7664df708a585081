"""From the second head's predictions to detections."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from detector.boxes import Coding, clip_boxes
from detector.contract import Detections
from detector.faster_rcnn.regions import Regions
from detector.nms import best_of_images

MIN_SIDE = 1e-2  # pixels; detections with a shorter side go


class RegionPostProcessor(NamedTuple):
    """Every class of every region with a box of its own, clipped, and thinned out by NMS per class.

    Attributes:
        coding: of the boxes.
        softmax: whether scores are of a softmax with background, else of sigmoids.
        score_thresh: a detection scores more than this.
        nms_thresh: IoU above which the worse of two detections of one class goes.
        detections_per_img: how many remain at most.
    """

    coding: Coding
    softmax: bool
    score_thresh: float = 0.05
    nms_thresh: float = 0.5
    detections_per_img: int = 100

    @torch.no_grad()
    def __call__(
        self, cls_logits: Tensor, box_deltas: Tensor, regions: Regions, image_sizes: Sequence[tuple[int, int]]
    ) -> Detections:
        """Detections of each image, best first; among equal scores earlier regions and lower classes.

        Args:
            cls_logits: (R, K) and box_deltas: (R, K, 4), float32, of the regions.
            image_sizes: (h, w) to which the boxes of each image are clipped.
        """
        num_images = len(image_sizes)
        scores = F.pad(cls_logits, (1, 0)).softmax(dim=1)[:, 1:] if self.softmax else cls_logits.sigmoid()
        rows, labels = (scores > self.score_thresh).nonzero().unbind(1)
        boxes = self.coding.decode(box_deltas[rows, labels], regions.boxes[rows])
        images, scores = regions.images[rows], scores[rows, labels]
        boxes = clip_boxes(boxes, boxes.new_tensor(image_sizes)[images])
        large = ((boxes[:, 2:] - boxes[:, :2]) >= MIN_SIDE).all(dim=1)
        boxes, scores, labels, images = (values[large] for values in (boxes, scores, labels, images))
        limits = self.nms_thresh, self.detections_per_img
        keep, counts = best_of_images(boxes, scores, labels, images, num_images, *limits)
        parts = (values[keep].split(counts) for values in (boxes, scores, labels))
        return [{"boxes": b, "scores": s, "labels": k} for b, s, k in zip(*parts, strict=True)]
