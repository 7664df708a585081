"""Faster R-CNN (arXiv:1506.01497) on a feature pyramid (arXiv:1612.03144)."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from detector.backbones.fpn import PooledFPN
from detector.backbones.resnet import ResNet
from detector.contract import Detections, Targets
from detector.faster_rcnn.head import POOLED_SIDE, RoIHead, RPNHead
from detector.faster_rcnn.objective import FasterRCNNObjective, as_one_class
from detector.faster_rcnn.postprocess import RegionPostProcessor
from detector.faster_rcnn.proposals import Proposer
from detector.faster_rcnn.regions import RegionPooler, Regions
from detector.monitor import Monitor
from detector.pyramid import PyramidDetector
from detector.references import References
from losses.balance import SelfBalance


class FasterRCNN(PyramidDetector):
    """Backbone, pyramid, a head on every level that proposes regions, and one that classifies what is pooled of them.

    What a `Monitor` sees are the regions of the second head; of the anchors it hears how they fit, and how many are
    positive.
    """

    head: RPNHead
    references: References
    class_head = tuple(
        f"roi_head.{name}.{kind}" for name in ("cls_logits", "box_deltas") for kind in ("weight", "bias")
    )
    winograd_parts = ("fpn", "head")
    level_names = ("P2", "P3", "P4", "P5")  # from which regions are pooled

    def __init__(
        self,
        backbone: ResNet,
        fpn: PooledFPN,
        head: RPNHead,
        roi_head: RoIHead,
        references: References,
        proposer: Proposer,
        pooler: RegionPooler,
        objective: FasterRCNNObjective,
        postprocess: RegionPostProcessor,
    ) -> None:
        super().__init__(backbone, fpn, head)
        self.roi_head = roi_head
        self.references = references
        self.anchor_generator = references.generator  # a module: its anchors follow the detector to its device
        self.proposer, self.pooler, self.objective, self.postprocess = proposer, pooler, objective, postprocess

    def forward(
        self,
        images: Tensor,
        targets: Targets | None = None,
        image_sizes: Sequence[tuple[int, int]] | None = None,
        group: ProcessGroup | None = None,
        monitor: Monitor | None = None,
    ) -> dict[str, Tensor] | Detections:
        """See `Detector`; the losses are those of `FasterRCNNObjective`, the detections of `RegionPostProcessor`."""
        if self.training and targets is None:
            raise ValueError("training needs targets; call .eval() for detections")
        image_sizes = image_sizes or [(images.shape[-2], images.shape[-1])] * len(images)
        features, logits, box_deltas, anchors_per_level = self.raw_outputs(images)
        with torch.autocast(images.device.type, enabled=False):
            proposals = self.proposer(logits, box_deltas, anchors_per_level, image_sizes, self.training)
        if targets is None or not self.training:
            is_proposal = proposals.any(dim=2)  # and no padding
            regions = Regions(proposals[is_proposal], is_proposal.nonzero()[:, 0])
            predictions = self._of_regions(features, regions)
            with torch.autocast(images.device.type, enabled=False):
                return self.postprocess(*predictions, regions, image_sizes)

        found = self.objective.roi.match(proposals, targets, self.roi_head.num_classes)
        predictions = self._of_regions(features, found.regions)
        with torch.autocast(images.device.type, enabled=False):
            of_rpn = None if monitor is None else Monitor()
            rpn = self.objective.rpn(logits, box_deltas, anchors_per_level, as_one_class(targets), group, of_rpn)
            roi = self.objective.roi(*predictions, found, group, monitor)
            if monitor is not None and of_rpn is not None:
                monitor.values["num_positives_rpn"] = of_rpn.values["num_positives"]
                if monitor.detailed:
                    levels = self.pooler.levels(found.regions.boxes[found.rows])
                    monitor.values["positives_per_level"] = levels.bincount(minlength=len(self.level_names))
                    monitor.watch_fit(anchors_per_level, targets)
            return self.objective.join(rpn, roi)

    def raw_outputs(self, images: Tensor) -> tuple[list[Tensor], Tensor, Tensor, list[Tensor]]:
        """What the first head predicts for every anchor, in either mode.

        Returns:
            the maps P2 to P6; logits (B, A, 1), before the sigmoid, and box_deltas (B, A, 4), float32; and the
            anchors, level by level (n, 4), together (A, 4) in the same order.
        """
        features = self.features(images)
        logits, box_deltas = self.head(features)
        return features, logits, box_deltas, self.anchor_generator([feature.shape[-2:] for feature in features])

    def _of_regions(self, features: list[Tensor], regions: Regions) -> tuple[Tensor, Tensor]:
        """What the second head predicts: cls_logits (R, K) and box_deltas (R, K, 4), float32."""
        with torch.autocast(regions.boxes.device.type, enabled=False):
            pooled = self.pooler(features[: len(self.level_names)], regions)
        return self.roi_head(pooled)

    def outputs(self, images: Tensor) -> dict[str, Tensor]:
        """Both heads' predictions, for counting their arithmetic: those of the second head are of blank regions.

        Which regions an image has takes NMS.
        """
        features, logits, box_deltas, _ = self.raw_outputs(images)
        number = len(images) * self.proposer.number
        pooled = features[0].new_zeros(number, features[0].shape[1], POOLED_SIDE, POOLED_SIDE)
        cls_logits, roi_deltas = self.roi_head(pooled)
        return {"logits": logits, "box_deltas": box_deltas, "cls_logits": cls_logits, "roi_deltas": roi_deltas}

    def balances(self) -> dict[str, SelfBalance]:
        heads = {"rpn": self.objective.rpn.loss.balance, "roi": self.objective.roi.loss.balance}
        return {head: balance for head, balance in heads.items() if balance is not None}
