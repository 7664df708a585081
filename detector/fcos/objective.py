"""The objective of FCOS: match points, compare as any head does, and learn centreness beside it.

B images, A points of one image, K classes, P positives of the batch.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from detector.assignment import Assignment, assign_targets
from detector.fcos.points import DistanceCoding, PointMatcher, centerness
from detector.monitor import Monitor
from detector.objectives.matched import compare, watch
from losses.group_sums import ratio_over_group
from losses.loss import Loss
from losses.overlaps import box_center


class FCOSObjective(nn.Module):
    """A loss of `losses.table` of the points that are matched, and cross-entropy of their centreness.

    With centreness predicted, boxes count by how central their points are, in losses that treat them apart from scores.

    Args:
        matcher: of the points.
        loss: what compares; its state (`loss.balance`) is the objective's only one.
        ignore_crowd: see `assign_targets`; a point is covered by a crowd region as its cell is.
        coding: of the distances.
    """

    def __init__(self, matcher: PointMatcher, loss: Loss, ignore_crowd: bool, coding: DistanceCoding) -> None:
        super().__init__()
        self.matcher = matcher
        self.loss = loss
        self.ignore_crowd = ignore_crowd
        self.coding = coding

    def assign(
        self, cells_per_level: Sequence[Tensor], targets: Sequence[dict[str, Any]], num_classes: int
    ) -> Assignment:
        """What each of the A points has to predict, of K classes; arguments as of `forward`."""
        return assign_targets(self.matcher, cells_per_level, targets, num_classes, self.ignore_crowd)

    def forward(
        self,
        cls_logits: Tensor,
        distances: Tensor,
        centerness_logits: Tensor | None,
        cells_per_level: Sequence[Tensor],
        targets: Sequence[dict[str, Any]],
        group: ProcessGroup | None = None,
        monitor: Monitor | None = None,
        assignment: Assignment | None = None,
    ) -> dict[str, Tensor]:
        """Losses of a batch, or of the batches of all processes in `group`.

        Args:
            cls_logits: (B, A, K) any float dtype, distances: (B, A, 4) and centerness_logits: (B, A) or None, float32.
            cells_per_level: list of (n, 4), together (A, 4), whose centres are the points.
            targets: see `assign_targets`.
            monitor: filled with statistics of this process's batch if given.
            assignment: what `assign` gives, if it is there already.
        Returns:
            Scalars "loss" (to differentiate) and its parts, see `losses.loss.Loss`, "loss_centerness" among them
            where centreness is predicted.
        """
        if assignment is None:
            assignment = self.assign(cells_per_level, targets, cls_logits.shape[-1])
        matched = compare(cls_logits, distances, assignment, self.coding)
        central = centerness(box_center(assignment.reference_boxes), assignment.gt_boxes)
        if centerness_logits is not None:
            matched = replace(matched, box_weights=central)
        if monitor is not None:
            watch(monitor, matched, self.loss.settings, group)
            if monitor.detailed:
                monitor.watch_levels(cells_per_level, assignment.reference_index)
        losses = self.loss.of_matched(matched, group)
        if centerness_logits is None:
            return losses
        predicted = assignment.of_positives(centerness_logits[..., None]).squeeze(1)
        total = F.binary_cross_entropy_with_logits(predicted, central.to(predicted.dtype), reduction="sum")
        loss_centerness = ratio_over_group(total, total.new_full((), len(predicted)), group)
        loss = losses["loss"] + loss_centerness.to(losses["loss"].dtype)
        return losses | {"loss": loss, "loss_centerness": loss_centerness}
