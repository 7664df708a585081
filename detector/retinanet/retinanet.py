"""RetinaNet (arXiv:1708.02002)."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from detector.backbones.fpn import FPN
from detector.backbones.resnet import ResNet
from detector.contract import Detections, Targets
from detector.monitor import Monitor
from detector.objectives import AnchorObjective
from detector.padded import PaddedDetections, padded_detections
from detector.postprocess import PostProcessor
from detector.pyramid import PyramidDetector
from detector.references import References
from detector.retinanet.head import RetinaNetHead
from losses.balance import SelfBalance


class RetinaNet(PyramidDetector):
    """Backbone, pyramid, and two heads that predict from the anchors of every level.

    Training puts the predictions through `objective`, evaluation through `postprocess`.
    """

    head: RetinaNetHead
    references: References
    winograd_parts = ("fpn", "head")

    def __init__(
        self,
        backbone: ResNet,
        fpn: FPN,
        head: RetinaNetHead,
        references: References,
        objective: AnchorObjective,
        postprocess: PostProcessor,
    ) -> None:
        super().__init__(backbone, fpn, head)
        self.references = references
        self.level_names = references.level_names
        self.anchor_generator = references.generator  # a module: its anchors follow the detector to its device
        self.objective = objective
        self.postprocess = postprocess

    def forward(
        self,
        images: Tensor,
        targets: Targets | None = None,
        image_sizes: Sequence[tuple[int, int]] | None = None,
        group: ProcessGroup | None = None,
        monitor: Monitor | None = None,
    ) -> dict[str, Tensor] | Detections:
        """See `Detector`; the losses are those of the objective, the detections those of `PostProcessor`."""
        if self.training and targets is None:
            raise ValueError("training needs targets; call .eval() for detections")
        cls_logits, box_deltas, anchors_per_level = self.raw_outputs(images)
        # Ranks and IoUs need all digits: from here on in float32, whatever the network computes in.
        with torch.autocast(images.device.type, enabled=False):
            if targets is not None and self.training:
                return self.objective(cls_logits, box_deltas, anchors_per_level, targets, group, monitor)
            image_sizes = image_sizes or [(images.shape[-2], images.shape[-1])] * len(images)
            return self.postprocess(cls_logits, box_deltas, anchors_per_level, image_sizes)

    def raw_outputs(self, images: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Predictions of the network for every anchor, in either mode.

        Returns:
            cls_logits (B, A, K), before the sigmoid, float32; box_deltas (B, A, 4), float32; and the
            anchors, level by level (n, 4), together (A, 4) in the same order.
        """
        features = self.features(images)
        cls_logits, box_deltas = self.head(features)
        return cls_logits, box_deltas, self.anchor_generator([feature.shape[-2:] for feature in features])

    def outputs(self, images: Tensor) -> dict[str, Tensor]:
        cls_logits, box_deltas, _ = self.raw_outputs(images)
        return {"cls_logits": cls_logits, "box_deltas": box_deltas}

    def padded_detections(self, images: Tensor, image_sizes: Tensor) -> PaddedDetections:
        cls_logits, box_deltas, anchors_per_level = self.raw_outputs(images)
        return padded_detections(self.postprocess, cls_logits.sigmoid(), box_deltas, anchors_per_level, image_sizes)

    def balances(self) -> dict[str, SelfBalance]:
        return {} if self.objective.loss.balance is None else {"": self.objective.loss.balance}
