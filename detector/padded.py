"""Detections in tensors whose shapes do not depend on what is found: post-processing inside an exported program.

The detections are those of `PostProcessor`. B images, N candidates and D rows of detections of each.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from detector.boxes import clip_boxes
from detector.nms import MAX_SHIFTED, round_down
from losses.overlaps import box_area, shared_area

if TYPE_CHECKING:
    from detector.postprocess import PostProcessor

NOTHING = -1  # label of a row without a detection, and index of a candidate that does not exist
MASKED = -1.0  # score of what is no candidate; scores are not negative


class PaddedDetections(NamedTuple):
    """Detections of each image, best first, in the first rows; the rows left over have label -1 and zeros.

    Attributes:
        boxes: (B, D, 4) xyxy. scores: (B, D). labels: (B, D) int64.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor


def padded_detections(
    postprocess: "PostProcessor",
    scores: Tensor,
    box_deltas: Tensor,
    references_per_level: Sequence[Tensor],
    image_sizes: Tensor,
    candidates: Tensor | None = None,
) -> PaddedDetections:
    """What `PostProcessor.of_scores` finds, in D = `detections_per_img` rows.

    Where more than `topk_candidates` entries of a level tie for the last place, others of them may be chosen.

    Args:
        scores: (B, A, K) and box_deltas: (B, A, 4), float32.
        references_per_level: list of (n, 4), together (A, 4).
        image_sizes: (B, 2) heights and widths, to which the boxes of each image are clipped.
        candidates: (B, A, K) bool, what may be a detection; default: what scores more than the threshold.
    """
    num_classes = scores.shape[2]
    candidates = scores > postprocess.score_thresh if candidates is None else candidates
    masked, first = scores.where(candidates, MASKED).flatten(1), 0
    scores_per_level, entries_per_level = [], []
    for level in references_per_level:
        size = level.shape[0] * num_classes  # len() would make a constant of it
        # as many masked entries at the end as are chosen: small levels then have enough
        entries = F.pad(masked[:, first : first + size], (0, postprocess.topk_candidates), value=MASKED)
        # in the order of the level, so that the first of equal scores is the one that `PostProcessor` prefers
        best = entries.topk(postprocess.topk_candidates, dim=1).indices.sort(dim=1).values
        scores_per_level.append(entries.gather(1, best))
        entries_per_level.append(best.clamp(max=size - 1) + first)
        first = first + size
    scores, entries = torch.cat(scores_per_level, dim=1), torch.cat(entries_per_level, dim=1)
    return thinned_out(
        postprocess, scores, entries, num_classes, box_deltas, references_per_level, image_sizes, search_best
    )


# boxes (B, N, 4), scores (B, N), labels (B, N), threshold, rows -> (B, rows); see `search_best`
Search = Callable[[Tensor, Tensor, Tensor, float, int], Tensor]


def thinned_out(
    postprocess: "PostProcessor",
    scores: Tensor,
    entries: Tensor,
    num_classes: int,
    box_deltas: Tensor,
    references_per_level: Sequence[Tensor],
    image_sizes: Tensor,
    search: Search,
) -> PaddedDetections:
    """The candidates decoded, clipped, and thinned out by NMS.

    Args:
        scores: (B, N), MASKED where there is no candidate.
        entries: (B, N) int64, which of the A · num_classes scores of the image each is.
        search: finds the boxes that are kept. The others as of `padded_detections`.
    """
    reference_index = entries.div(num_classes, rounding_mode="floor")
    references = torch.cat(list(references_per_level))[reference_index.flatten()]
    boxes = postprocess.coding.decode(_rows(box_deltas, reference_index).flatten(0, 1), references)
    limits = image_sizes.to(boxes.dtype)[:, None].expand(-1, entries.shape[1], -1).flatten(0, 1)
    boxes = clip_boxes(boxes, limits).view(*entries.shape, 4)
    labels = entries % num_classes

    kept = padded_nms(boxes, scores, labels, postprocess.nms_thresh, postprocess.detections_per_img, search)
    found, kept = kept >= 0, kept.clamp(min=0)
    return PaddedDetections(
        _rows(boxes, kept) * found[..., None],
        scores.gather(1, kept) * found,
        labels.gather(1, kept).where(found, NOTHING),
    )


def search_best(boxes: Tensor, scores: Tensor, labels: Tensor, threshold: float, num_kept: int) -> Tensor:
    """Takes the best candidate of each image, drops what it suppresses, and again: a loop that can be exported.

    Args:
        boxes: (B, N, 4) float, xyxy. scores: (B, N), negative where there is no candidate. labels: (B, N) integers.
        threshold: a number of the type of the boxes; a box goes if its IoU with a kept one is larger.
    Returns:
        (B, num_kept) int64 indices, best first, lower index first among equal scores; -1 in the rows left over.
    """
    areas = box_area(boxes)

    def is_unfinished(rank: Tensor, scores: Tensor, kept: Tensor) -> Tensor:
        return rank < num_kept

    def keep_best(rank: Tensor, scores: Tensor, kept: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        best = scores.argmax(dim=1, keepdim=True)  # (B, 1); the first of equal ones
        exists = scores.gather(1, best) >= 0
        shared = shared_area(_rows(boxes, best).unbind(dim=2), boxes.unbind(dim=2))
        overlaps = shared / (areas.gather(1, best) + areas - shared) > threshold  # rounded as of `pairwise_iou`
        gone = (overlaps & (labels == labels.gather(1, best))).scatter(1, best, True)
        kept = kept.scatter(1, rank.expand_as(best), best.where(exists, NOTHING))
        return rank + 1, scores.masked_fill(gone, MASKED), kept

    kept = torch.full_like(labels[:, :1], NOTHING).expand(-1, num_kept).clone()
    return torch.while_loop(is_unfinished, keep_best, (kept.new_zeros(()), scores, kept))[2]


def padded_nms(
    boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float, num_kept: int, search: Search = search_best
) -> Tensor:
    """`nms_of_images` of as many boxes in each image.

    Args:
        boxes: (B, N, 4) float, xyxy, not negative. scores: (B, N), negative where there is no candidate.
        labels: (B, N) integers; classes do not suppress each other.
        iou_threshold: a box goes if its IoU with a kept one is larger.
    Returns:
        As of `search_best`.
    """
    boxes = boxes + _shifts(boxes, scores, labels)[..., None]
    return search(boxes, scores, labels, round_down(iou_threshold, boxes.dtype).item(), num_kept)


def _shifts(boxes: Tensor, scores: Tensor, labels: Tensor) -> Tensor:
    """(B, N) what `nms_of_images` adds to the coordinates of each box."""
    exists = scores >= 0
    highest = (boxes.amax(dim=2) * exists).amax(dim=1)
    highest = highest.where(exists.sum(dim=1) <= MAX_SHIFTED, -1)
    return labels * (highest + 1)[:, None]


def _rows(table: Tensor, index: Tensor) -> Tensor:
    """(B, M, 4) rows of a table (B, N, 4) by their index (B, M)."""
    return table.gather(1, index[..., None].expand(-1, -1, table.shape[2]))
