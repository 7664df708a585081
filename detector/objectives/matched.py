"""Match, then compare: the objective of a head whose reference boxes are matched before the loss sees them.

B images, A reference boxes of one image, K classes, P positives of the batch.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.distributed import ProcessGroup

from detector.assignment import Assignment, Matcher, assign_targets
from detector.boxes import PAPER_CODING, Coding
from detector.monitor import Monitor
from losses.loss import Loss, LossSettings
from losses.matched import Matched
from losses.triton_support import as_losses_read


class MatchedObjective(nn.Module):
    """Gives what a matcher finds to a loss of `losses.table`.

    Args:
        matcher: `MaxIoUMatcher` or `ATSSMatcher`.
        loss: compares predictions with targets. Its state (`loss.balance`) is the only one of the objective.
        ignore_crowd: see `assign_targets`.
        coding: of the boxes.
        tau: IoU from which the matcher takes a reference box for that of its object; τ of the LRP error.
    """

    def __init__(
        self,
        matcher: Matcher,
        loss: Loss,
        ignore_crowd: bool = False,
        coding: Coding = PAPER_CODING,
        tau: float = 0.5,
    ) -> None:
        super().__init__()
        self.tau = tau
        self.matcher = matcher
        self.loss = loss
        self.ignore_crowd = ignore_crowd
        self.coding = coding

    def assign(
        self, references_per_level: Sequence[Tensor], targets: Sequence[dict[str, Any]], num_classes: int
    ) -> Assignment:
        """What each of the A reference boxes has to predict, of K classes; arguments as of `forward`."""
        return assign_targets(self.matcher, references_per_level, targets, num_classes, self.ignore_crowd)

    def forward(
        self,
        cls_logits: Tensor,
        box_deltas: Tensor,
        references_per_level: Sequence[Tensor],
        targets: Sequence[dict[str, Any]],
        group: ProcessGroup | None = None,
        monitor: Monitor | None = None,
        assignment: Assignment | None = None,
    ) -> dict[str, Tensor]:
        """Losses of a batch, ranked or averaged over it, or over the batches of all processes in `group`.

        Args:
            cls_logits: (B, A, K) any float dtype, and box_deltas: (B, A, 4), float32.
            references_per_level: list of (n, 4), together (A, 4).
            targets: see `assign_targets`.
            monitor: takes the statistics of this process's batch, if given.
            assignment: what `assign` gives, if it is there already.
        Returns:
            Scalars "loss" (to differentiate) and its parts, see `losses.loss.Loss`.
        """
        # First decide what every reference box should predict; only then look at what the positive ones do predict.
        if assignment is None:
            assignment = self.assign(references_per_level, targets, cls_logits.shape[-1])
        matched = compare(cls_logits, box_deltas, assignment, self.coding, self.tau)
        if monitor is not None:
            watch(monitor, matched, self.loss.settings, group)
            if monitor.detailed:
                monitor.watch_levels(references_per_level, assignment.reference_index)
                monitor.watch_fit(references_per_level, targets)
        return self.loss.of_matched(matched, group)


def compare(
    cls_logits: Tensor, box_deltas: Tensor, assignment: Assignment, coding: Coding, tau: float = 0.5
) -> Matched:
    """Puts predictions beside their targets; only the P positives are decoded, of some hundred thousand.

    Args:
        cls_logits: (B, A, K) any float dtype, and box_deltas: (B, A, 4), float32.
    """
    pred_deltas, boxes = assignment.of_positives(box_deltas), assignment.reference_boxes  # (P, 4) each
    return Matched(
        logits=as_losses_read(cls_logits.flatten()),
        targets=assignment.cls_targets.flatten(),
        entries=assignment.entries,
        pred_boxes=coding.decode(pred_deltas, boxes),
        gt_boxes=assignment.gt_boxes,
        pred_deltas=pred_deltas,
        encode_targets=partial(coding.encode, assignment.gt_boxes, boxes),
        num_classes=cls_logits.shape[-1],
        tau=tau,
    )


def watch(monitor: Monitor, matched: Matched, settings: LossSettings, group: ProcessGroup | None) -> None:
    """Shows a monitor the entries that are about to be ranked; it hears of their gradient by a hook on the logits."""
    delta = settings.step_half_width
    monitor.watch_logits(matched.logits, matched.targets, delta if settings.ranks else None)
    if monitor.detailed:
        monitor.watch_ranks(matched.logits, matched.targets, matched.entries, delta, group)
        monitor.watch_boxes(matched.pred_boxes, matched.gt_boxes)
