"""Detections from the outputs of FCOS, with its network or, exported, without it."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from detector.fcos.points import DistanceCoding
from detector.postprocess import PostProcessor

BELOW_ALL = -0.5  # less than any score: from which on all that is not masked is a candidate
MASKED = -1.0


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
    scores = cls_logits.sigmoid()
    if centerness_logits is None:
        return postprocess.of_scores(scores, distances, cells_per_level, image_sizes)
    candidates = scores > postprocess.score_thresh
    scores = (scores * centerness_logits.sigmoid()[..., None]).sqrt()
    if score_thresh_of_root:
        return postprocess.of_scores(scores, distances, cells_per_level, image_sizes)
    scores = scores.masked_fill(~candidates, MASKED)
    return postprocess.of_scores(scores, distances, cells_per_level, image_sizes, BELOW_ALL)


def output_names(level_names: Sequence[str], centerness: bool) -> tuple[str, ...]:
    """cls_logits (B, A, K), distances (B, A, 4), with centreness centerness_logits (B, A), and the cells (n, 4), in
    whose middle the points are, of each level."""
    branch = ("centerness_logits",) if centerness else ()
    return "cls_logits", "distances", *branch, *(f"cells_{name.lower()}" for name in level_names)


def settings_of(postprocess: PostProcessor, centerness: bool, score_thresh_of_root: bool) -> dict[str, Any]:
    """Arguments of the post-processor as plain values, whether centreness is among the outputs, and what the threshold
    is of."""
    settings = dict(vars(postprocess))
    coding: DistanceCoding = settings.pop("coding")
    others = {"centerness": centerness, "score_thresh_of_root": score_thresh_of_root}
    return settings | {"in_strides": coding.in_strides} | others


def detections_from_outputs(
    outputs: Sequence[Any], settings: Mapping[str, Any], image_sizes: Sequence[tuple[int, int]]
) -> list[dict[str, Tensor]]:
    """Detections as the detector itself gives them.

    Args:
        outputs: tensors or NumPy arrays in the order of `output_names`.
        settings: what `settings_of` says, also after a way through JSON.
        image_sizes: (height, width) of each image without its padding, to which boxes are clipped.
    """
    arguments = dict(settings)
    centerness, coding = arguments.pop("centerness"), DistanceCoding(arguments.pop("in_strides"))
    of_root = arguments.pop("score_thresh_of_root")
    cls_logits, distances, *rest = (torch.as_tensor(output) for output in outputs)
    logits = rest.pop(0) if centerness else None
    postprocess = PostProcessor(**arguments, coding=coding)
    return detections_of_points(postprocess, cls_logits, distances, logits, rest, image_sizes, of_root)
