"""The objective of Faster R-CNN: both heads match and then compare, the second one the regions of the first.

B images, N proposals of an image, R regions that the second head learns from, K classes, P positives among them.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from detector.assignment import assign_targets, padded_targets
from detector.boxes import Coding
from detector.faster_rcnn.regions import Regions
from detector.faster_rcnn.sampling import SampledMatcher
from detector.monitor import Monitor
from detector.objectives.matched import MatchedObjective, watch
from losses.loss import Loss
from losses.matched import Matched


class MatchedRegions(NamedTuple):
    """The regions that the second head learns from, and what it has to say of them.

    regions: R of them. cls_targets: (R, K) int8, 1 positive, 0 negative, -1 ignored.
    rows: (P,) int64, the positive regions, ascending. entries: (P,) int64, their indices among the R·K entries.
    gt_boxes: (P, 4), the boxes that they have to predict.
    """

    regions: Regions
    cls_targets: Tensor
    rows: Tensor
    entries: Tensor
    gt_boxes: Tensor


class RegionObjective(nn.Module):
    """Matches proposals to objects, and gives what the second head says of them to a loss of `losses.table`.

    Args:
        matcher: of the proposals, each image's own.
        loss: compares predictions with targets.
        ignore_crowd: see `assign_targets`.
        coding: of the boxes.
        append_objects: whether objects are regions too.
    """

    def __init__(
        self, matcher: SampledMatcher, loss: Loss, ignore_crowd: bool, coding: Coding, append_objects: bool
    ) -> None:
        super().__init__()
        self.matcher, self.loss, self.ignore_crowd, self.coding = matcher, loss, ignore_crowd, coding
        self.append_objects = append_objects

    @torch.no_grad()
    def match(self, proposals: Tensor, targets: Sequence[dict[str, Any]], num_classes: int) -> MatchedRegions:
        """Regions to learn from, of proposals (B, N, 4) that are padded with rows of zeros."""
        if self.append_objects:
            boxes, _, crowd = padded_targets(targets)
            objects = boxes.masked_fill(crowd[..., None], 0).to(proposals.dtype)
            proposals = torch.cat([proposals, objects], dim=1)
        found = assign_targets(self.matcher, [proposals], targets, num_classes, self.ignore_crowd)
        used = (found.cls_targets >= 0).any(dim=2)  # (B, N)
        images, places = used.nonzero().unbind(1)
        # what counts places among the B·N of the batch counts them among the R regions
        rows = (used.flatten().cumsum(0) - 1)[found.images * proposals.shape[1] + found.reference_index]
        entries = rows * num_classes + found.entries % num_classes
        regions = Regions(proposals[images, places], images)
        return MatchedRegions(regions, found.cls_targets[used], rows, entries, found.gt_boxes)

    def forward(
        self,
        cls_logits: Tensor,
        box_deltas: Tensor,
        found: MatchedRegions,
        group: ProcessGroup | None = None,
        monitor: Monitor | None = None,
    ) -> dict[str, Tensor]:
        """Parts of the loss of the batch, see `losses.loss.Loss`.

        Args:
            cls_logits: (R, K) and box_deltas: (R, K, 4), float32, of the regions that were found.
        """
        pred_deltas = box_deltas.flatten(0, 1)[found.entries]  # each object's class has offsets of its own
        boxes = found.regions.boxes[found.rows]
        matched = Matched(
            logits=cls_logits.flatten(),
            targets=found.cls_targets.flatten(),
            entries=found.entries,
            pred_boxes=self.coding.decode(pred_deltas, boxes),
            gt_boxes=found.gt_boxes,
            pred_deltas=pred_deltas,
            encode_targets=partial(self.coding.encode, found.gt_boxes, boxes),
            num_classes=cls_logits.shape[1],
        )
        if monitor is not None:
            watch(monitor, matched, self.loss.settings, group)
        return self.loss.of_matched(matched, group)


class FasterRCNNObjective(nn.Module):
    """Both heads' objectives, and the weight of the first one's loss in the sum."""

    def __init__(self, rpn: MatchedObjective, roi: RegionObjective, rpn_weight: float) -> None:
        super().__init__()
        self.rpn, self.roi, self.rpn_weight = rpn, roi, rpn_weight

    def join(self, rpn: dict[str, Tensor], roi: dict[str, Tensor]) -> dict[str, Tensor]:
        """Both heads' losses: "loss", to differentiate, and the unweighted parts "loss_…_rpn" and "loss_…_roi"."""
        joined = {"loss": self.rpn_weight * rpn.pop("loss") + roi.pop("loss")}
        for head, losses in (("rpn", rpn), ("roi", roi)):
            joined |= {f"{name}_{head}": value for name, value in losses.items()}
        return joined


def as_one_class(targets: Sequence[dict[str, Any]]) -> list[dict[str, Tensor]]:
    """The same objects and crowd regions, all of one class, as the first head sees them."""
    return [
        {"boxes": target["boxes"], "labels": torch.zeros_like(target["labels"]), "crowd": target["crowd"]}
        for target in targets
    ]
