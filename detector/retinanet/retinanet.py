"""RetinaNet (arXiv:1708.02002)."""

from collections.abc import Sequence

from torch import Tensor

from detector.assignment import Assignment
from detector.backbones.fpn import FPN
from detector.backbones.resnet import ResNet
from detector.contract import Detections, Targets
from detector.objectives import AnchorObjective, MatchedObjective
from detector.padded import PaddedDetections, padded_detections
from detector.postprocess import PostProcessor
from detector.pyramid import DenseDetector
from detector.references import References
from detector.retinanet.head import RetinaNetHead


class RetinaNet(DenseDetector):
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

    def raw_outputs(self, images: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Predictions of the network for every anchor, in either mode.

        Returns:
            cls_logits (B, A, K), before the sigmoid, and box_deltas (B, A, 4), types as of the head; and the anchors,
            level by level (n, 4), together (A, 4) in the same order.
        """
        features = self.features(images)
        cls_logits, box_deltas = self.head(features)
        return cls_logits, box_deltas, self.anchor_generator([feature.shape[-2:] for feature in features])

    def assignment(self, targets: Targets, image_size: tuple[int, int]) -> Assignment | None:
        if not isinstance(self.objective, MatchedObjective):
            return None
        return self.objective.assign(self.references.boxes(image_size), targets, self.head.num_classes)

    def detections(
        self, outputs: tuple[Tensor, Tensor, list[Tensor]], image_sizes: Sequence[tuple[int, int]]
    ) -> Detections:
        return self.postprocess(*outputs, image_sizes)

    def outputs(self, images: Tensor) -> dict[str, Tensor]:
        cls_logits, box_deltas, _ = self.raw_outputs(images)
        return {"cls_logits": cls_logits, "box_deltas": box_deltas}

    def padded_detections(self, images: Tensor, image_sizes: Tensor) -> PaddedDetections:
        cls_logits, box_deltas, anchors_per_level = self.raw_outputs(images)
        return padded_detections(self.postprocess, cls_logits.sigmoid(), box_deltas, anchors_per_level, image_sizes)
