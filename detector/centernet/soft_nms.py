"""Soft non-maximum suppression (Bodla et al., arXiv:1704.04503): overlaps lower scores instead of removing boxes."""

import torch
from torch import Tensor

from detector.boxes import pairwise_iou

SIGMA = 0.5


def soft_nms(boxes: Tensor, scores: Tensor, groups: Tensor) -> Tensor:
    """Scores after each box, best first, has lowered those of the boxes of its group that are left, by exp(-IoU² / σ).

    All groups go together, in as many rounds as the largest has boxes. IoUs are those of continuous boxes, without the
    released code's pixel.

    Args:
        boxes: (N, 4) xyxy. scores: (N,) >= 0.
        groups: (N,) integers >= 0; boxes of different groups leave each other alone.
    Returns:
        (N,) scores, none above the given one; lower indices come first among equal ones.
    """
    if not len(boxes):
        return scores
    order = groups.argsort(stable=True)
    _, counts = groups[order].unique_consecutive(return_counts=True)
    row = torch.arange(len(counts), device=boxes.device).repeat_interleave(counts, output_size=len(boxes))
    column = torch.arange(len(boxes), device=boxes.device) - (counts.cumsum(0) - counts)[row]
    most = int(counts.max())
    padded = boxes.new_zeros(len(counts), most, 4)
    padded[row, column] = boxes[order]
    left = scores.new_full((len(counts), most), -1.0)  # scores of the boxes not yet taken
    left[row, column] = scores[order]
    result = torch.zeros_like(left)
    for _ in range(most):
        best, place = left.max(dim=1, keepdim=True)
        chosen = padded.gather(1, place[..., None].expand(-1, -1, 4))
        overlap = pairwise_iou(chosen, padded).squeeze(1).nan_to_num()  # of two boxes without area
        result.scatter_reduce_(1, place, best, "amax")  # of a group without boxes left, -1 at any place
        left = left * (-overlap.square() / SIGMA).exp()
        left.scatter_(1, place, -1.0)
    lowered = torch.empty_like(scores)
    lowered[order] = result[row, column]
    return lowered
