"""From maps of keypoints to boxes: pairs of corners, confirmed by a centre (arXiv:1904.08189, section 3.2).

B images, K classes, maps of h rows and w columns; k keypoints of each kind and image, N pairs of all images.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from detector.boxes import clip_boxes
from detector.centernet.head import Maps
from detector.centernet.soft_nms import soft_nms
from losses.overlaps import box_area

STRIDE = 4  # pixels a cell
MAX_TAG_DISTANCE = 0.5  # between the corners of a pair
MAX_PAIRS = 1000  # of an image, before a centre confirms them
SMALL_AREA = 150.0**2  # pixels², up to which the central region is a third of both sides; beyond, a fifth
OUTSIDE = 5.0  # pixels beyond the border of its image, from which on a pair is dropped


class _Points(NamedTuple):
    """The k best keypoints of one kind: (B, k) scores, -1 for none, and labels; (B, k, 2) points (x, y) in pixels; and
    (B, k) cells, row by row."""

    scores: Tensor
    labels: Tensor
    points: Tensor
    cells: Tensor


class Pairs(NamedTuple):
    """Of N pairs, image by image: boxes (N, 4) in pixels, scores (N,), labels (N,), and images (N,) ascending."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    images: Tensor

    def chosen(self, which: Tensor) -> "Pairs":
        """Those of an index or a mask."""
        return Pairs(*(values[which] for values in self))


class TripletDecoder:
    """Maps to detections.

    Args:
        score_thresh: a detection scores more than this, also after soft-NMS.
        topk_candidates: k, over all classes.
        detections_per_img: how many remain at most.
    """

    def __init__(self, score_thresh: float = 0.001, topk_candidates: int = 70, detections_per_img: int = 100) -> None:
        self.score_thresh = score_thresh
        self.topk_candidates = topk_candidates
        self.detections_per_img = detections_per_img

    @torch.no_grad()
    def __call__(self, maps: Maps, image_sizes: Sequence[tuple[int, int]]) -> list[dict[str, Tensor]]:
        """Detections of each image.

        Args:
            maps: of the head, float32.
            image_sizes: (h, w) to which the boxes of each image are clipped.
        Returns:
            Per image "boxes" (n, 4) xyxy, "scores" (n,), "labels" (n,) int64, best first.
        """
        found = self.triplets(maps, image_sizes)
        scores = soft_nms(found.boxes, found.scores, found.images * maps.cls_logits.shape[2] + found.labels)
        found = found._replace(scores=scores).chosen(scores.argsort(descending=True, stable=True))
        found = found.chosen(found.images.argsort(stable=True))
        found = found.chosen(found.scores > self.score_thresh)
        counts = found.images.bincount(minlength=len(image_sizes)).tolist()
        best = slice(self.detections_per_img)
        parts = (values.split(counts) for values in (found.boxes, found.scores, found.labels))
        return [{"boxes": b[best], "scores": s[best], "labels": k[best]} for b, s, k in zip(*parts, strict=True)]

    def triplets(self, maps: Maps, image_sizes: Sequence[tuple[int, int]]) -> Pairs:
        """The pairs of corners that a centre confirms, clipped to their images, before soft-NMS.

        Their score is the mean of the three keypoints'.
        """
        heat = _peaks(maps.cls_logits)
        top_left, bottom_right, center = (self._best(heat[:, kind], maps.offsets[:, kind]) for kind in range(3))
        tags_of_maps = maps.tags.flatten(2).unbind(1)
        tags = [
            of_map.gather(1, kind.cells) for of_map, kind in zip(tags_of_maps, (top_left, bottom_right), strict=True)
        ]
        pairs = _pairs(top_left, bottom_right, (tags[0][:, :, None] - tags[1][:, None]).abs())

        # what is far outside goes before a centre is looked for, what is a little outside is clipped
        sizes = pairs.boxes.new_tensor(image_sizes)[pairs.images]
        near = (pairs.boxes[:, :2] > -OUTSIDE) & (pairs.boxes[:, 2:] < sizes.flip(1) + OUTSIDE)
        inside = near.all(dim=1)
        pairs = pairs.chosen(inside)
        pairs = pairs._replace(boxes=clip_boxes(pairs.boxes, sizes[inside]))
        confirmed = _best_center(pairs, center)
        pairs = pairs._replace(scores=(2 * pairs.scores + confirmed) / 3)
        return pairs.chosen(confirmed >= 0)

    def _best(self, heat: Tensor, offsets: Tensor) -> _Points:
        """Of one kind of keypoint: heat (B, K, h, w) and offsets (B, 2, h, w)."""
        num_cells, width = heat.shape[2] * heat.shape[3], heat.shape[3]
        scores, places = heat.flatten(1).topk(min(self.topk_candidates, heat.shape[1] * num_cells))
        labels, cells = places.div(num_cells, rounding_mode="floor"), places % num_cells
        corner = torch.stack([cells % width, cells.div(width, rounding_mode="floor")], dim=2)
        offset = offsets.flatten(2).gather(2, cells[:, None].expand(-1, 2, -1)).transpose(1, 2)
        return _Points(scores, labels, (corner + offset) * STRIDE, cells)


def _peaks(cls_logits: Tensor) -> Tensor:
    """(B, 3, K, h, w) logits to scores, -1 in cells that a neighbour exceeds."""
    scores = cls_logits.sigmoid()
    highest = F.max_pool2d(scores.flatten(1, 2), 3, stride=1, padding=1).view_as(scores)
    return scores.where(scores == highest, -1)


def _pairs(top_left: _Points, bottom_right: _Points, tag_distance: Tensor) -> Pairs:
    """The best pairs of corners that may be of one object; tag_distance (B, k, k)."""
    first, last = top_left.points[:, :, None], bottom_right.points[:, None]
    scores = (top_left.scores[:, :, None] + bottom_right.scores[:, None]) / 2
    possible = (tag_distance <= MAX_TAG_DISTANCE) & (last >= first).all(dim=-1)
    possible &= top_left.labels[:, :, None] == bottom_right.labels[:, None]
    possible &= (top_left.scores[:, :, None] >= 0) & (bottom_right.scores[:, None] >= 0)
    scores = scores.where(possible, -1).flatten(1)
    scores, places = scores.topk(min(MAX_PAIRS, scores.shape[1]))
    images, columns = (scores >= 0).nonzero(as_tuple=True)
    ones, others = torch.unravel_index(places[images, columns], tag_distance.shape[1:])
    boxes = torch.cat([top_left.points[images, ones], bottom_right.points[images, others]], dim=1)
    return Pairs(boxes, scores[images, columns], top_left.labels[images, ones], images)


def _best_center(pairs: Pairs, center: _Points) -> Tensor:
    """(N,) score of the best centre of its class strictly within the central region of each pair, -1 for none."""
    low, high = pairs.boxes[:, :2], pairs.boxes[:, 2:]
    parts = torch.where(box_area(pairs.boxes) <= SMALL_AREA, 3.0, 5.0)[:, None]
    # the middle one of 3 or of 5 equal parts of each side
    margin = (parts - 1) / 2 * (high - low) / parts
    points = center.points[pairs.images]  # (N, k, 2)
    inside = ((points > (low + margin)[:, None]) & (points < (high - margin)[:, None])).all(dim=-1)
    inside &= center.labels[pairs.images] == pairs.labels[:, None]
    return center.scores[pairs.images].where(inside, -1).amax(dim=1)
