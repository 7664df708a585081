"""Points in place of anchors: which object each has to predict, and boxes as distances from a point to four sides.

A point is the centre of its cell, a square of one stride, which stands for it where others ask for reference boxes.
N points of all levels, G objects of an image.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from detector.boxes import pair_chunks
from detector.matcher import NEGATIVE
from losses.overlaps import box_area, box_center

CENTER_RADIUS = 1.5  # strides
RANGE_LIMITS = (64.0, 128.0, 256.0, 512.0)  # pixels, between the five levels
BEYOND = 1e8  # pixels: the last level takes all that is larger


@torch.no_grad()
def assign_points(
    points_per_level: Sequence[Tensor],
    strides: Sequence[int],
    boxes: Tensor,
    center_radius: float | None = CENTER_RADIUS,
    range_limits: Sequence[float] = RANGE_LIMITS,
) -> Tensor:
    """The object that each point has to predict.

    A point inside an object's box, and with a radius also in the square around its centre, is a candidate at the level
    whose range has the largest of its four distances to the box's sides. Both ends of a range belong to it, the border
    of the box and of the square does not. Of several objects a point takes the smallest, of equal ones the first.

    Args:
        points_per_level: list of (n, 2) (x, y) pixels, together (N, 2). strides: of the levels.
        boxes: (G, 4) or (B, G, 4) xyxy pixels; boxes without area, such as padding, get no point.
        center_radius: half the side of the square in strides; None for the whole box, as first published.
        range_limits: ascending, pixels, one less than there are levels.
    Returns:
        (N,) or (B, N) int64: index of the object, -1 negative; all negative where G = 0.
    Source: arXiv:1904.01355, section 3.2; with a radius, its released code.
    """
    batch = boxes if boxes.dim() == 3 else boxes[None]
    lows, highs = (-1.0, *range_limits), (*range_limits, BEYOND)
    matches = []
    for points, stride, low, high in zip(points_per_level, strides, lows, highs, strict=True):
        radius = torch.inf if center_radius is None else center_radius * stride
        matches.append(_assign_level(points, batch.to(points.dtype), radius, (low, high)))
    return torch.cat(matches, dim=1).view(*boxes.shape[:-2], -1)


def _assign_level(points: Tensor, boxes: Tensor, radius: float, limits: tuple[float, float]) -> Tensor:
    """(n, 2) points of a level and boxes (B, G, 4) to (B, n)."""
    smallest = points.new_full((len(boxes), len(points)), torch.inf)
    matches = torch.full_like(smallest, NEGATIVE, dtype=torch.int64)
    for images, objects in pair_chunks(boxes, len(points)):
        area = _areas_of_candidates(points, boxes[images, objects], radius, limits)  # (b, g, n)
        area, nearest = area.min(dim=-2)  # the first of equal ones
        better = area < smallest[images]
        smallest[images] = torch.where(better, area, smallest[images])
        matches[images] = torch.where(better, nearest + objects.start, matches[images])
    return matches


def _areas_of_candidates(points: Tensor, boxes: Tensor, radius: float, limits: tuple[float, float]) -> Tensor:
    """(b, g, n) area of the box (b, g, 4) where the point (n, 2) is a candidate for it, inf elsewhere."""
    inner, farthest = [], []
    for axis in range(2):  # by axis: few tensors are as large as all pairs
        position, first, last = points[:, axis], boxes[..., axis, None], boxes[..., axis + 2, None]
        center = (first + last) / 2
        low, high = torch.maximum(first, center - radius), torch.minimum(last, center + radius)
        inner.append((position > low) & (position < high))
        farthest.append(torch.maximum(position - first, last - position))
    reach = torch.maximum(*farthest)
    candidate = inner[0] & inner[1] & (reach >= limits[0]) & (reach <= limits[1])
    return torch.where(candidate, box_area(boxes)[..., None], torch.inf)


class PointMatcher:
    """`assign_points` as a matcher of cells, see `detector.matcher`; nothing is ignored."""

    def __init__(self, strides: Sequence[int], center_radius: float | None, range_limits: Sequence[float]) -> None:
        self.strides, self.center_radius, self.range_limits = tuple(strides), center_radius, tuple(range_limits)

    def __call__(self, cells_per_level: Sequence[Tensor], gt_boxes: Tensor) -> Tensor:
        """Match the centres of cells (n, 4) of each level; result as of `assign_points`."""
        points = [box_center(cells) for cells in cells_per_level]
        return assign_points(points, self.strides, gt_boxes, self.center_radius, self.range_limits)


class DistanceCoding(NamedTuple):
    """Boxes as distances (left, top, right, bottom) from the point to the sides, in strides or pixels."""

    in_strides: bool = True

    def encode(self, gt_boxes: Tensor, references: Tensor) -> Tensor:
        """Distances (N, 4) of boxes (N, 4) from the centres of cells (N, 4)."""
        points = box_center(references)
        return torch.cat([points - gt_boxes[:, :2], gt_boxes[:, 2:] - points], dim=1) / self._unit(references)

    def decode(self, predictions: Tensor, references: Tensor) -> Tensor:
        """The boxes that distances make of cells; inverse of `encode`."""
        points, distances = box_center(references), predictions * self._unit(references)
        return torch.cat([points - distances[:, :2], points + distances[:, 2:]], dim=1)

    def _unit(self, cells: Tensor) -> Tensor:
        stride = cells[:, 2:3] - cells[:, :1]
        return stride if self.in_strides else torch.ones_like(stride)


def centerness(points: Tensor, boxes: Tensor) -> Tensor:
    """Centreness of points (P, 2) in boxes (P, 4): (P,) in [0, 1], 1 in the middle (arXiv:1904.01355, Eq. 3)."""
    first, last = points - boxes[:, :2], boxes[:, 2:] - points
    return (torch.minimum(first, last) / torch.maximum(first, last)).prod(dim=1).clamp(min=0).sqrt()
