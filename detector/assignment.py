"""Assignment of ground truth: it says what each reference box of a batch has to predict.

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
    """Targets of the B·A·K entries of a batch, and the P positives among them in order.

    cls_targets: (B, A, K) int8, 1 positive, 0 negative, -1 ignored.
    images: (P,) int64, the image of each positive, ascending.
    reference_index: (P,) int64, its index among the A reference boxes of the image, ascending within an image.
    entries: (P,) int64, its index among the B·A·K entries, ascending: a reference box is positive in one class.
    reference_boxes: (P, 4), its reference box. gt_boxes: (P, 4), the box that it has to predict.
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
    """Matches every image's reference boxes to its objects, all images at once.

    Crowd regions are no objects: a reference box on one is negative like any other. With ignore_crowd, a negative
    reference box that a crowd region covers by half or more is ignored, in that region's class only.

    Args:
        references_per_level: list of (n, 4), together (A, 4); or of (B, n, 4) where every image has its own, if the
            matcher takes such.
        targets: per image "boxes" (n, 4), "labels" (n,) in 0..K-1, "crowd" (n,) bool; see `padded_targets`.
    """
    reference_boxes = torch.cat(list(references_per_level), dim=-2)
    boxes, labels, crowd = padded_targets(targets)
    boxes = boxes.to(reference_boxes.dtype)
    # Match all boxes at once. Crowd regions must match nothing, as padding does: as boxes of zeros.
    matches = matcher(references_per_level, boxes.masked_fill(crowd[..., None], 0))  # (B, A)
    # A reference box without an object is negative in every class, or ignored in every class.
    cls_targets = -(matches == IGNORED).to(torch.int8)
    cls_targets = cls_targets[..., None].repeat(1, 1, num_classes)
    if ignore_crowd:
        regions = boxes.masked_fill(~crowd[..., None], 0)
        _ignore_covered(cls_targets, matches == NEGATIVE, reference_boxes, regions, labels)

    # The only wait for a GPU of an assignment: the number of positives decides the shapes of all that follows.
    images, reference_index = (matches >= 0).nonzero().unbind(1)
    objects = matches[images, reference_index]
    object_labels = labels[images, objects]
    # Only the class of its object makes an entry positive; the other classes of that box stay negative.
    entries = (images * matches.shape[1] + reference_index) * num_classes + object_labels
    cls_targets.view(-1).index_fill_(0, entries, 1)
    positive_boxes = reference_boxes.expand(len(matches), -1, -1)[images, reference_index]
    return Assignment(cls_targets, images, reference_index, entries, positive_boxes, boxes[images, objects])


def _ignore_covered(
    cls_targets: Tensor, negative: Tensor, reference_boxes: Tensor, regions: Tensor, labels: Tensor
) -> None:
    """Sets the cls_targets (B, A, K) of reference boxes that are covered and `negative` (B, A) to -1, in the region's
    class.

    regions: (B, n, 4), rows of zeros for objects and padding; labels: (B, n).
    """
    for images, chunk in pair_chunks(regions, reference_boxes.shape[-2]):
        of_images = reference_boxes if reference_boxes.dim() == 2 else reference_boxes[images]
        covered = intersection_over_area(of_images, regions[images, chunk]) >= CROWD_COVERAGE  # (b, A, r)
        ignored = -(covered & negative[images, :, None]).to(torch.int8)
        classes = labels[images, None, chunk].expand(ignored.shape)
        cls_targets[images].scatter_reduce_(2, classes, ignored, "amin")


@runtime_checkable
class JoinedTargets(Protocol):
    """Targets of B images whose N objects lie joined: `boxes` (N, 4), `labels` and `crowd` (N,); `image` and `place`
    (N,) int64, the image of each object and its number there; and `counts`, the number of objects of each image."""

    boxes: Tensor
    labels: Tensor
    crowd: Tensor
    image: Tensor
    place: Tensor
    counts: list[int]


def padded_targets(targets: Sequence[dict[str, Any]]) -> tuple[Tensor, Tensor, Tensor]:
    """Pads the boxes (B, n, 4), labels (B, n) and crowd (B, n) of a batch with zeros, n of the image that has most.

    `JoinedTargets` take one operation a tensor, however many images there are.
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
