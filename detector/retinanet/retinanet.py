"""RetinaNet (arXiv:1708.02002)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from detector.backbones.fpn import FPN
from detector.backbones.resnet import ResNet
from detector.contract import IMAGENET_MEAN, IMAGENET_STD, SIZE_DIVISOR, Detections, Detector, Targets
from detector.monitor import Monitor
from detector.objectives import MatchedObjective
from detector.postprocess import PostProcessor
from detector.references import References
from detector.retinanet.export import output_names, settings_of
from detector.retinanet.head import RetinaNetHead
from losses.balance import SelfBalance


class RetinaNet(Detector):
    """Backbone, pyramid, and two heads that predict from the anchors of every level.

    Training puts the predictions through `objective`, evaluation through `postprocess`.
    """

    references: References
    class_head = ("head.cls_logits.weight", "head.cls_logits.bias")
    winograd_parts = ("fpn", "head")
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        backbone: ResNet,
        fpn: FPN,
        head: RetinaNetHead,
        references: References,
        objective: MatchedObjective,
        postprocess: PostProcessor,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.fpn = fpn
        self.head = head
        self.references = references
        self.level_names = references.level_names
        self.anchor_generator = references.generator  # a module: its anchors follow the detector to its device
        self.objective = objective
        self.postprocess = postprocess
        self.register_buffer("pixel_mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)

    def forward(
        self,
        images: Tensor,
        targets: Targets | None = None,
        image_sizes: Sequence[tuple[int, int]] | None = None,
        group: ProcessGroup | None = None,
        monitor: Monitor | None = None,
    ) -> dict[str, Tensor] | Detections:
        """See `Detector`; the losses are those of `MatchedObjective`, the detections those of `PostProcessor`."""
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
        height, width = images.shape[-2:]
        if height % SIZE_DIVISOR or width % SIZE_DIVISOR:
            raise ValueError(f"images of {height}×{width} pixels: pad both sides to multiples of {SIZE_DIVISOR}")
        # C3 to C5 of the backbone become P3 to P7; one head, shared by all levels, predicts from each.
        features = self.fpn(self.backbone((images - self.pixel_mean) / self.pixel_std))
        cls_logits, box_deltas = self.head(features)
        return cls_logits, box_deltas, self.anchor_generator([feature.shape[-2:] for feature in features])

    def outputs(self, images: Tensor) -> dict[str, Tensor]:
        cls_logits, box_deltas, anchors_per_level = self.raw_outputs(images)
        return dict(zip(output_names(self.references), (cls_logits, box_deltas, *anchors_per_level), strict=True))

    def output_settings(self) -> dict[str, Any]:
        return settings_of(self.postprocess)

    def compile_network(self) -> None:
        """Compiles backbone, pyramid and head; on a CPU the backbone alone, as the others are slower compiled.

        The objective is never compiled, as its shapes change with the number of objects.
        """
        on_cpu = self.pixel_mean.device.type == "cpu"
        for part in (self.backbone,) if on_cpu else (self.backbone, self.fpn, self.head):
            part.compile()

    def balances(self) -> dict[str, SelfBalance]:
        return {} if self.objective.loss.balance is None else {"": self.objective.loss.balance}
