"""Detections from the outputs of FCOS."""

from collections.abc import Sequence

from torch import Tensor

from detector.padded import MASKED, PaddedDetections, padded_detections
from detector.postprocess import PostProcessor

BELOW_ALL = -0.5  # less than any score: from which on all that is not masked is a candidate


def detections_of_points(
    postprocess: PostProcessor,
    cls_logits: Tensor,
    distances: Tensor,
    centerness_logits: Tensor | None,
    cells_per_level: Sequence[Tensor],
    image_sizes: Sequence[tuple[int, int]],
    score_thresh_of_root: bool = False,
) -> list[dict[str, Tensor]]:
    """Detections of each image, as `PostProcessor` gives them.

    With centreness the score is √(class · centreness), while the threshold is one of the class alone (the released
    code; the paper has no root), unless `score_thresh_of_root` (torchvision).

    Args:
        cls_logits: (B, A, K), distances: (B, A, 4), centerness_logits: (B, A) or None, float32.
        cells_per_level: list of (n, 4), together (A, 4).
    """
    scores, candidates = _scores(cls_logits, centerness_logits, postprocess.score_thresh, score_thresh_of_root)
    scores = scores.masked_fill(~candidates, MASKED)
    return postprocess.of_scores(scores, distances, cells_per_level, image_sizes, BELOW_ALL)


def padded_detections_of_points(
    postprocess: PostProcessor,
    cls_logits: Tensor,
    distances: Tensor,
    centerness_logits: Tensor | None,
    cells_per_level: Sequence[Tensor],
    image_sizes: Tensor,
    score_thresh_of_root: bool = False,
) -> PaddedDetections:
    """`detections_of_points` as an exported program makes them; image_sizes (B, 2) as of `padded_detections`."""
    scores, candidates = _scores(cls_logits, centerness_logits, postprocess.score_thresh, score_thresh_of_root)
    return padded_detections(postprocess, scores, distances, cells_per_level, image_sizes, candidates)


def _scores(
    cls_logits: Tensor, centerness_logits: Tensor | None, score_thresh: float, of_root: bool
) -> tuple[Tensor, Tensor]:
    """(B, A, K) scores, and whether each may be a detection."""
    scores = cls_logits.sigmoid()
    if centerness_logits is None:
        return scores, scores > score_thresh
    roots = (scores * centerness_logits.sigmoid()[..., None]).sqrt()
    return roots, (roots if of_root else scores) > score_thresh
