"""Ground truth to targets: what each reference box has to predict.

B images, A reference boxes of one image (anchors, of all levels), K classes, P positives of the batch.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from detector.boxes import intersection_over_area, pair_chunks
from detector.matcher import IGNORED, NEGATIVE

Matcher = Callable[[Sequence[Tensor], Tensor], Tensor]

CROWD_COVERAGE = 0.5  # share of a reference box inside a crowd region from which it is ignored there


class Assignment(NamedTuple):
    """What the reference boxes of a batch have to predict.

    cls_targets: (B, A, K) int8, 1 positive, 0 negative, -1 ignored.
    images: (P,) int64, the image of each positive, ascending.
    reference_index: (P,) int64, which of the image's A reference boxes it is, ascending within an image.
    entries: (P,) int64 indices into B·A·K of the positive entries, in the same order: a reference box is positive in
        one class.
    reference_boxes: (P, 4), those boxes. gt_boxes: (P, 4), the box that each has to predict.
    """

    cls_targets: Tensor
    images: Tensor
    reference_index: Tensor
    entries: Tensor
    reference_boxes: Tensor
    gt_boxes: Tensor

    def of_positives(self, predictions: Tensor) -> Tensor:
        """(B, A, n) predictions to those of the positives, (P, n)."""
        return predictions.flatten(0, 1)[self.images * predictions.shape[1] + self.reference_index]


@torch.no_grad()
def assign_targets(
    matcher: Matcher,
    references_per_level: Sequence[Tensor],
    targets: Sequence[dict[str, Any]],
    num_classes: int,
    ignore_crowd: bool,
) -> Assignment:
    """Match every image's reference boxes to its objects, all images at once.

    Crowd regions are no objects: a reference box on one is negative like any other, or, with ignore_crowd, a
    negative one at least half covered by a crowd region is ignored in that region's class only.

    Args:
        references_per_level: list of (n, 4), together (A, 4).
        targets: per image "boxes" (n, 4), "labels" (n,) in 0..K-1, "crowd" (n,) bool; see `padded_targets`.
    """
    reference_boxes = torch.cat(list(references_per_level))
    boxes, labels, crowd = padded_targets(targets)
    boxes = boxes.to(reference_boxes.dtype)
    # (B, A); boxes of zeros match nothing
    matches = matcher(references_per_level, boxes.masked_fill(crowd[..., None], 0))
    cls_targets = -(matches == IGNORED).to(torch.int8)
    cls_targets = cls_targets[..., None].repeat(1, 1, num_classes)
    if ignore_crowd:
        regions = boxes.masked_fill(~crowd[..., None], 0)
        _ignore_covered(cls_targets, matches == NEGATIVE, reference_boxes, regions, labels)

    # The one wait for a GPU of an assignment: how many positives there are decides the shapes of all that follows.
    images, reference_index = (matches >= 0).nonzero().unbind(1)
    objects = matches[images, reference_index]
    object_labels = labels[images, objects]
    entries = (images * matches.shape[1] + reference_index) * num_classes + object_labels
    cls_targets.view(-1).index_fill_(0, entries, 1)
    positive_boxes = reference_boxes[reference_index]
    return Assignment(cls_targets, images, reference_index, entries, positive_boxes, boxes[images, objects])


def _ignore_covered(
    cls_targets: Tensor, negative: Tensor, reference_boxes: Tensor, regions: Tensor, labels: Tensor
) -> None:
    """Sets the cls_targets (B, A, K) of covered reference boxes, where negative (B, A), to -1 in the region's class.

    regions: (B, n, 4), zeros for what is none; labels: (B, n).
    """
    for images, chunk in pair_chunks(regions, len(reference_boxes)):
        covered = intersection_over_area(reference_boxes, regions[images, chunk]) >= CROWD_COVERAGE  # (b, A, r)
        ignored = -(covered & negative[images, :, None]).to(torch.int8)
        classes = labels[images, None, chunk].expand(ignored.shape)
        cls_targets[images].scatter_reduce_(2, classes, ignored, "amin")


@runtime_checkable
class JoinedTargets(Protocol):
    """Targets of B images whose N objects lie joined: `boxes` (N, 4), `labels` and `crowd` (N,), `image` and `place`
    (N,) int64, which image each object is in and its number there, and `counts`, the objects of each image."""

    boxes: Tensor
    labels: Tensor
    crowd: Tensor
    image: Tensor
    place: Tensor
    counts: list[int]


def padded_targets(targets: Sequence[dict[str, Any]]) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes (B, n, 4), labels (B, n) and crowd (B, n) of a batch, n of the image that has most, padded with zeros.

    `JoinedTargets` are spread by one operation a tensor, however many images there are.
    """
    if not isinstance(targets, JoinedTargets):
        boxes, labels, crowd = (pad_sequence([t[key] for t in targets], True) for key in ("boxes", "labels", "crowd"))
        return boxes, labels, crowd
    shape, where = (len(targets.counts), max(targets.counts)), (targets.image, targets.place)
    boxes, labels, crowd = (
        values.new_zeros(*shape, *values.shape[1:]).index_put_(where, values)
        for values in (targets.boxes, targets.labels, targets.crowd)
    )
    return boxes, labels, crowd
