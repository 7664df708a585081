"""FCOS (arXiv:1904.01355)."""

from collections.abc import Sequence

from torch import Tensor

from detector.anchors import AnchorGenerator
from detector.assignment import Assignment
from detector.backbones.fpn import FPN
from detector.backbones.resnet import ResNet
from detector.contract import Detections, Targets
from detector.fcos.head import FCOSHead
from detector.fcos.objective import FCOSObjective
from detector.fcos.postprocess import detections_of_points, padded_detections_of_points
from detector.padded import PaddedDetections
from detector.postprocess import PostProcessor
from detector.pyramid import DenseDetector


class FCOS(DenseDetector):
    """Backbone, pyramid, a head on every level, points, objective and post-processing. It starts from no boxes."""

    head: FCOSHead
    level_names = ("P3", "P4", "P5", "P6", "P7")

    def __init__(
        self,
        backbone: ResNet,
        fpn: FPN,
        head: FCOSHead,
        cells: AnchorGenerator,
        objective: FCOSObjective,
        postprocess: PostProcessor,
        score_thresh_of_root: bool = False,
    ) -> None:
        super().__init__(backbone, fpn, head)
        self.cells = cells
        self.objective = objective
        self.postprocess = postprocess
        self.score_thresh_of_root = score_thresh_of_root

    def raw_outputs(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor | None, list[Tensor]]:
        """Predictions of the network for every point, in either mode.

        Returns:
            cls_logits (B, A, K), before the sigmoid; distances (B, A, 4) from the point to the left, top, right and
            bottom side; centerness_logits (B, A) or None, types as of the head; and the points' cells, level by level
            (n, 4), together (A, 4) in the same order.
        """
        features = self.features(images)
        cls_logits, distances, *branch = self.head(features)
        cells_per_level = self.cells([feature.shape[-2:] for feature in features])
        return cls_logits, distances, branch[0] if branch else None, cells_per_level

    def assignment(self, targets: Targets, image_size: tuple[int, int]) -> Assignment:
        return self.objective.assign(self.cells.of_image(image_size), targets, self.head.num_classes)

    def detections(
        self, outputs: tuple[Tensor, Tensor, Tensor | None, list[Tensor]], image_sizes: Sequence[tuple[int, int]]
    ) -> Detections:
        return detections_of_points(self.postprocess, *outputs, image_sizes, self.score_thresh_of_root)

    def outputs(self, images: Tensor) -> dict[str, Tensor]:
        cls_logits, distances, centerness_logits, _ = self.raw_outputs(images)
        branch = {} if centerness_logits is None else {"centerness_logits": centerness_logits}
        return {"cls_logits": cls_logits, "distances": distances} | branch

    def padded_detections(self, images: Tensor, image_sizes: Tensor) -> PaddedDetections:
        return padded_detections_of_points(
            self.postprocess, *self.raw_outputs(images), image_sizes, self.score_thresh_of_root
        )
