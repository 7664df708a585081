"""Non-maximum suppression per class, of all images at once, in rounds over tensors."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from detector.boxes import pairwise_iou
from losses.precision import at_least_float32

_BLOCK = 128  # boxes of one class that are settled together
_MAX_PAIRS = 2**21  # IoUs at once, padding included: a limit on memory
_SMALL = 16  # boxes, up to which groups of all sizes go together
# Up to this many boxes torchvision separates classes by shifting their boxes, and a shift rounds.
MAX_SHIFTED = 1000


def batched_nms(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """Keep, class by class, the boxes that overlap no better box that is kept.

    Keeps what `torchvision.ops.batched_nms` keeps on the CPU, also where rounding decides; the same on every
    device.

    Args:
        boxes: (N, 4) float, xyxy, not negative: clipped to the image. scores: (N,).
        labels: (N,) integers; classes do not suppress each other.
        iou_threshold: a box goes if its IoU with a kept one is larger. A NaN (two boxes without area) is not.
    Returns:
        (n,) int64 indices of the kept boxes, best score first, lower index first among equal scores.
    """
    return nms_of_images(boxes, scores, labels, torch.zeros_like(labels, dtype=torch.int64), 1, iou_threshold)


def nms_of_images(
    boxes: Tensor, scores: Tensor, labels: Tensor, images: Tensor, num_images: int, iou_threshold: float
) -> Tensor:
    """`batched_nms` of several images at once, with the result that each would have alone.

    Args:
        images: (N,) int64 in 0..num_images-1, which image each box is of. The others as of `batched_nms`.
    Returns:
        (n,) int64 indices of the kept boxes, by image, and within an image as of `batched_nms`.
    """
    if len(boxes) == 0:
        return torch.empty(0, dtype=torch.int64, device=boxes.device)
    boxes = at_least_float32(boxes)  # shifted by class, half the digits say nothing
    threshold = round_down(iou_threshold, boxes.dtype)
    boxes = boxes + _shifts(boxes, labels, images, num_images)[:, None]

    order = scores.argsort(descending=True, stable=True)
    by_score = order[images[order].argsort(stable=True)]  # image by image, best first
    groups = images * (labels.max() + 1) + labels
    order = by_score[groups[by_score].argsort(stable=True)]  # class by class of each image, best first
    kept = torch.empty_like(order, dtype=torch.bool)
    kept[order] = _suppress(boxes[order], groups[order], threshold)
    return by_score[kept[by_score]]


def best_of_images(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    images: Tensor,
    num_images: int,
    iou_threshold: float,
    most: int,
) -> tuple[Tensor, list[int]]:
    """The first `most` of each image that `nms_of_images` keeps, in its order, and how many they are by image."""
    keep = nms_of_images(boxes, scores, labels, images, num_images, iou_threshold)
    keep = keep[rank_in_group(images[keep], num_images) < most]
    return keep, images[keep].bincount(minlength=num_images).tolist()


def rank_in_group(groups: Tensor, num_groups: int) -> Tensor:
    """(N,) place of each element among those of its group, from 0; groups (N,) ascending."""
    counts = groups.bincount(minlength=num_groups)
    return torch.arange(len(groups), device=groups.device) - (counts.cumsum(0) - counts)[groups]


def _shifts(boxes: Tensor, labels: Tensor, images: Tensor, num_images: int) -> Tensor:
    """(N,) what torchvision adds to the coordinates of each box; 0 in images of many boxes."""
    highest = boxes.new_zeros(num_images).scatter_reduce_(0, images, boxes.amax(dim=1), "amax", include_self=False)
    highest = highest.where(images.bincount(minlength=num_images) <= MAX_SHIFTED, -1)
    return labels.to(boxes.dtype) * (highest + 1)[images]


def _suppress(boxes: Tensor, groups: Tensor, threshold: Tensor) -> Tensor:
    """(N,) bool, which boxes stay, for boxes sorted by group and best first within it."""
    _, counts = groups.unique_consecutive(return_counts=True)
    starts = counts.cumsum(0) - counts
    counts, by_size = counts.sort(descending=True, stable=True)
    starts = starts[by_size]
    kept = torch.zeros_like(groups, dtype=torch.bool)
    for rows, size in _similar_sizes(counts.tolist()):
        ranks = torch.arange(size, device=boxes.device)
        exists = ranks < counts[rows, None]  # (groups, ranks)
        members = (starts[rows, None] + ranks).where(exists, 0)
        kept[members[exists]] = _suppress_rows(boxes[members], exists, threshold)[exists]
    return kept


def _similar_sizes(counts: list[int]) -> Iterator[tuple[slice, int]]:
    """Descending counts in slices that can be padded to one length, their largest, at little cost."""
    start = 0
    while start < len(counts):
        size, stop = counts[start], start + 1
        most = start + max(1, _MAX_PAIRS // (size * min(size, _BLOCK)))
        while stop < min(most, len(counts)) and (counts[stop] > size / 2 or size <= _SMALL):
            stop += 1
        yield slice(start, stop), size
        start = stop


def _suppress_rows(boxes: Tensor, exists: Tensor, threshold: Tensor) -> Tensor:
    """(C, T) bool, which of the existing boxes of each row stay; boxes (C, T, 4), best first.

    Settles the best boxes left of every row, a block of them, and drops what these suppress, until none is left.
    """
    kept = torch.zeros_like(exists)
    left = torch.arange(boxes.shape[1], device=boxes.device).expand(exists.shape)  # (C, T) ranks, ascending
    while True:
        settled = _settle(boxes[:, :_BLOCK], exists[:, :_BLOCK], threshold)
        kept.scatter_(1, left[:, :_BLOCK], settled)
        if boxes.shape[1] <= _BLOCK:
            return kept
        block, boxes, exists, left = boxes[:, :_BLOCK], boxes[:, _BLOCK:], exists[:, _BLOCK:], left[:, _BLOCK:]
        overlaps = pairwise_iou(block, boxes) > threshold  # (C, block, rest)
        exists = exists & ~(overlaps & settled[..., None]).any(dim=1)
        # the survivors of each row to its front, and as many columns as the longest needs
        front = (~exists).sort(dim=1, stable=True).indices[:, : int(exists.sum(dim=1).max())]
        exists, left = exists.gather(1, front), left.gather(1, front)
        boxes = boxes.gather(1, front[..., None].expand(-1, -1, 4))


def _settle(boxes: Tensor, alive: Tensor, threshold: Tensor) -> Tensor:
    """(C, T) bool, which of the alive boxes of each row stay; boxes (C, T, 4), best first.

    `kept = alive and not suppressed by a kept one before it` has one solution, and iterating it from any start
    settles at least one more rank a round: as many rounds as the longest chain of suppressions, usually a
    handful.
    """
    suppresses = (pairwise_iou(boxes, boxes) > threshold).triu(diagonal=1).float()  # (C, T, T)
    kept = alive
    while True:
        suppressors = (kept[:, None].float() @ suppresses).squeeze(1)  # how many, of each box
        settled = alive & (suppressors == 0)
        if torch.equal(settled, kept):
            return kept
        kept = settled


def round_down(threshold: float, dtype: torch.dtype) -> Tensor:
    """Largest number of that type ≤ threshold: an IoU of that type exceeds both or neither."""
    rounded = torch.tensor(threshold, dtype=dtype, device="cpu")  # a number, whatever device is the default
    if rounded.double() > threshold:
        rounded = torch.nextafter(rounded, rounded.new_tensor(-math.inf))
    return rounded
