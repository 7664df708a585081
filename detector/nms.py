"""Non-maximum suppression per class, in rounds over tensors."""

import math

import torch
from torch import Tensor

from detector.boxes import pairwise_iou

_BLOCK = 128  # boxes of one class that are settled together
_MAX_PAIRS = 2**21  # IoUs of small classes at once, padding included: a limit on memory
# Up to this many boxes torchvision separates classes by shifting their boxes, and a shift rounds.
_MAX_SHIFTED = 1000


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
    if len(boxes) == 0:
        return torch.empty(0, dtype=torch.int64, device=boxes.device)
    threshold = _round_down(iou_threshold, boxes.dtype)
    if len(boxes) <= _MAX_SHIFTED:
        boxes = boxes + (labels.to(boxes) * (boxes.max() + 1))[:, None]
        labels = torch.zeros_like(labels)

    by_score = scores.argsort(descending=True, stable=True)
    order = by_score[labels[by_score].argsort(stable=True)]  # class by class, best first
    kept = torch.empty_like(order, dtype=torch.bool)
    kept[order] = _suppress(boxes[order], labels[order], threshold)
    return by_score[kept[by_score]]


def _suppress(boxes: Tensor, labels: Tensor, threshold: Tensor) -> Tensor:
    """(N,) bool, which boxes stay, for boxes sorted by class and best first within it."""
    _, counts = labels.unique_consecutive(return_counts=True)
    starts = counts.cumsum(0) - counts
    kept = torch.zeros_like(labels, dtype=torch.bool)

    # the small classes at once, padded to one length; most images have no others
    small = counts <= min(_BLOCK, math.isqrt(_MAX_PAIRS // len(counts)))
    ranks = torch.arange(int((counts * small).max()), device=boxes.device)
    exists = ranks < counts[small, None]  # (classes, ranks)
    members = (starts[small, None] + ranks).where(exists, 0)
    kept[members[exists]] = _settle(boxes[members], exists, threshold)[exists]

    for start, count in zip(starts[~small].tolist(), counts[~small].tolist(), strict=True):
        kept[start + _suppress_class(boxes[start : start + count], threshold)] = True
    return kept


def _suppress_class(boxes: Tensor, threshold: Tensor) -> Tensor:
    """Indices of the boxes of one class that stay, for boxes sorted best first.

    Settles the best boxes left, a block of them, and drops what these suppress, until none is left.
    """
    rest = torch.arange(len(boxes), device=boxes.device)
    kept = []
    while len(rest) > 0:
        block, rest = rest[:_BLOCK], rest[_BLOCK:]
        alive = torch.ones_like(block, dtype=torch.bool)
        kept.append(block[_settle(boxes[block][None], alive[None], threshold)[0]])
        suppressed = (pairwise_iou(boxes[kept[-1]], boxes[rest]) > threshold).any(dim=0)
        rest = rest[~suppressed]
    return torch.cat(kept)


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


def _round_down(threshold: float, dtype: torch.dtype) -> Tensor:
    """Largest number of that type ≤ threshold: an IoU of that type exceeds both or neither."""
    rounded = torch.tensor(threshold, dtype=dtype)
    if rounded.double() > threshold:
        rounded = torch.nextafter(rounded, rounded.new_tensor(-math.inf))
    return rounded
