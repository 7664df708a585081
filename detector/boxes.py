"""Coding of boxes, and overlaps of every box with every other; those of boxes in pairs are in losses/overlaps.py.

Boxes are (x1, y1, x2, y2) in continuous pixels, width x2 - x1. N, M, R, P: numbers of boxes.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from losses.overlaps import EPS, box_area, box_center, shared_area

MAX_LOG_RATIO = abs(math.log(16 / 1000))


class Coding(Protocol):
    """Codes boxes as a head predicts them, relative to their reference boxes: (N, 4) to (N, 4), and back."""

    def encode(self, gt_boxes: Tensor, references: Tensor) -> Tensor: ...
    def decode(self, predictions: Tensor, references: Tensor) -> Tensor: ...


class BoxCoding(NamedTuple):
    """Scale of the offsets: divisors of (dx, dy, dw, dh), and the log size ratios that decoding applies."""

    stds: tuple[float, float, float, float] = (0.1, 0.1, 0.2, 0.2)
    min_log_ratio: float = -MAX_LOG_RATIO
    max_log_ratio: float = MAX_LOG_RATIO

    def encode(self, gt_boxes: Tensor, references: Tensor) -> Tensor:
        """See `encode_boxes`."""
        return encode_boxes(gt_boxes, references, self)

    def decode(self, predictions: Tensor, references: Tensor) -> Tensor:
        """See `decode_boxes`."""
        return decode_boxes(predictions, references, self)


# Pairs of boxes worked out at a time, some 25 bytes each with the temporaries: a limit on memory, and on a CPU what its
# caches hold.
MAX_PAIRS, MAX_PAIRS_ON_CPU = 2**24, 2**20
MANY_CHUNKS = 8

PAPER_CODING = BoxCoding()
TORCHVISION_CODING = BoxCoding(stds=(1.0, 1.0, 1.0, 1.0), min_log_ratio=-math.inf)


def _pairwise_intersection(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """(..., N, 4) and (..., M, 4) to (..., N, M)."""
    # one contiguous row per coordinate: several times faster than reading every fourth number
    boxes1, boxes2 = boxes1.movedim(-1, 0).contiguous(), boxes2.movedim(-1, 0).contiguous()
    return shared_area(boxes1.unsqueeze(-1).unbind(), boxes2.unsqueeze(-2).unbind())


def pairwise_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """IoU of every box of one set with every box of another.

    Args:
        boxes1: (..., N, 4); boxes2: (..., M, 4), leading axes broadcast.
    Returns:
        (..., N, M) in [0, 1]; NaN where both boxes have no area (NaN exceeds no threshold).
        Rounded exactly as `inter / (area1 + area2 - inter)` in the boxes' own precision: the matchers' ties
        and the suppressions of NMS depend on it.
    """
    intersection = _pairwise_intersection(boxes1, boxes2)
    areas = box_area(boxes1).unsqueeze(-1) + box_area(boxes2).unsqueeze(-2)
    return intersection / (areas - intersection)


def pair_chunks(boxes: Tensor, num_others: int) -> Iterator[tuple[slice, slice]]:
    """Cuts the work on all pairs of boxes (B, n, 4), padded with rows of zeros at the end, and num_others other ones.

    One crowded image makes n large for all images. Where that makes more than MANY_CHUNKS chunks, each image is cut off
    at its own last box, for which a GPU is waited for. Otherwise nothing waits.

    Yields:
        images and rows of a chunk, boxes[images, rows]: at most MAX_PAIRS pairs (on a CPU MAX_PAIRS_ON_CPU), or one
        box. None if there is no pair.
    """
    num_images, most = boxes.shape[:2]
    pairs = most * num_others  # of an image
    if not pairs:
        return
    limit = min(MAX_PAIRS, MAX_PAIRS_ON_CPU) if boxes.device.type == "cpu" else MAX_PAIRS
    if pairs <= limit and num_images * pairs <= MANY_CHUNKS * limit:
        step = limit // pairs
        for first in range(0, num_images, step):
            yield slice(first, first + step), slice(0, most)
        return
    step = max(1, limit // num_others)
    ends = (boxes.any(dim=-1) * torch.arange(1, most + 1, device=boxes.device)).amax(dim=1)
    for image, end in enumerate(ends.tolist()):
        for first in range(0, end, step):
            yield slice(image, image + 1), slice(first, min(first + step, end))


def intersection_over_area(boxes: Tensor, regions: Tensor) -> Tensor:
    """Share of each box that each region covers: (..., N, 4), (..., R, 4) to (..., N, R) in [0, 1], leading axes
    broadcast; 0 for a box without area."""
    return _pairwise_intersection(boxes, regions) / box_area(boxes).clamp(min=EPS).unsqueeze(-1)


def encode_boxes(gt_boxes: Tensor, anchors: Tensor, coding: BoxCoding = PAPER_CODING) -> Tensor:
    """Offsets that carry each anchor onto the ground-truth box matched to it.

    Law: decode_boxes(encode_boxes(g, a, c), a, c) == g, unless a size offset hits the clamp.

    Args:
        gt_boxes: (P, 4), x1 < x2 and y1 < y2.
        anchors: (P, 4), same frame; row i is the anchor matched to row i of gt_boxes.
        coding: of which the divisors are used.
    Returns:
        (P, 4) offsets, unitless; (0, 4) when P = 0.
    Source: Faster R-CNN (arXiv:1506.01497), Eq. 2.
    """
    anchor_sizes = anchors[:, 2:] - anchors[:, :2]
    shift = (box_center(gt_boxes) - box_center(anchors)) / anchor_sizes
    log_ratio = torch.log((gt_boxes[:, 2:] - gt_boxes[:, :2]) / anchor_sizes)
    return torch.cat([shift, log_ratio], dim=1) / _stds(coding, gt_boxes)


def decode_boxes(box_deltas: Tensor, anchors: Tensor, coding: BoxCoding = PAPER_CODING) -> Tensor:
    """Boxes that the predicted offsets make of the anchors; inverse of `encode_boxes`.

    The log size ratio is clamped as the coding says, so that no prediction overflows or, with the paper's coding,
    loses all its area; beyond the clamp its gradient is zero. Boxes are not clipped to the image.

    Args:
        box_deltas: (P, 4) offsets; anchors: (P, 4).
    Returns:
        (P, 4) boxes.
    """
    box_deltas = box_deltas * _stds(coding, box_deltas)
    anchor_sizes = anchors[:, 2:] - anchors[:, :2]
    centers = box_center(anchors) + box_deltas[:, :2] * anchor_sizes
    log_ratio = box_deltas[:, 2:].clamp(coding.min_log_ratio, coding.max_log_ratio)
    half_sizes = anchor_sizes * log_ratio.exp() / 2
    return torch.cat([centers - half_sizes, centers + half_sizes], dim=1)


def _stds(coding: BoxCoding, like: Tensor) -> Tensor:
    """The divisors (4,) of the coding, made on the device: numbers that Python hands over would wait for a GPU."""
    return torch.stack([like.new_full((), std) for std in coding.stds])


def clip_boxes(boxes: Tensor, image_sizes: Tensor) -> Tensor:
    """(N, 4) boxes cut at the border of their images, (N, 2) heights and widths in pixels."""
    limits = image_sizes.flip(1).repeat(1, 2)  # (width, height, width, height)
    return boxes.clamp(min=0).minimum(limits)
