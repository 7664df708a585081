"""RetinaNet (arXiv:1708.02002)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from detector.anchors import AnchorGenerator
from detector.backbones.fpn import FPN
from detector.backbones.resnet import ResNet
from detector.criterion import Criterion
from detector.monitor import Monitor
from detector.postprocess import PostProcessor
from detector.retinanet.head import RetinaNetHead
from losses import SelfBalance

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
SIZE_DIVISOR = 32


class RetinaNet(nn.Module):
    """Images to detections, or with targets to losses.

    Attributes that a trainer sets:
        group: process group over whose batches the losses rank; None ranks within this process.
        monitor: None, or a `Monitor` to be filled with statistics of the step.
    """

    def __init__(
        self,
        backbone: ResNet,
        fpn: FPN,
        head: RetinaNetHead,
        anchor_generator: AnchorGenerator,
        criterion: Criterion,
        postprocess: PostProcessor,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.fpn = fpn
        self.head = head
        self.anchor_generator = anchor_generator
        self.criterion = criterion
        self.postprocess = postprocess
        self.group: ProcessGroup | None = None
        self.monitor: Monitor | None = None
        self.register_buffer("pixel_mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)

    @property
    def self_balance(self) -> SelfBalance | None:
        """State of self-balancing, which the trainer records into and updates; None where it is not used."""
        return self.criterion.self_balance

    def compile_network(self) -> None:
        """torch.compile of the network, on its device; names of parameters stay.

        The criterion stays out, as its shapes change with the number of objects. On a CPU so do pyramid and head:
        their convolutions are slower compiled.
        """
        on_cpu = self.pixel_mean.device.type == "cpu"
        for part in (self.backbone,) if on_cpu else (self.backbone, self.fpn, self.head):
            part.compile()

    def __getstate__(self) -> dict[str, object]:
        # copies and pickles are of the model only: a process group can be neither copied nor saved
        return self.__dict__ | {"group": None, "monitor": None}

    def forward(
        self,
        images: Tensor,
        targets: Sequence[dict[str, Tensor]] | None = None,
        image_sizes: Sequence[tuple[int, int]] | None = None,
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Losses in training mode, detections in evaluation mode; after the logits always in float32.

        Args:
            images: (B, 3, H, W) float, RGB in 0..1, H and W multiples of 32.
            targets: training only; per image "boxes" (n, 4) xyxy pixels, "labels" (n,), "crowd" (n,) bool.
            image_sizes: evaluation only; (h, w) of the part of each image that is not padding, to which
                boxes are clipped. Default: (H, W).
        Returns:
            Training: scalars "loss", "loss_cls", "loss_loc", see `Criterion`. Evaluation: see
                `PostProcessor`.
        Raises:
            ValueError: H or W is no multiple of 32; training without targets.
        """
        if self.training and targets is None:
            raise ValueError("training needs targets; call .eval() for detections")
        cls_logits, box_deltas, anchors_per_level = self.raw_outputs(images)
        with torch.autocast(images.device.type, enabled=False):
            if self.training:
                return self.criterion(cls_logits, box_deltas, anchors_per_level, targets, self.group, self.monitor)
            image_sizes = image_sizes or [images.shape[-2:]] * len(images)
            return self.postprocess(cls_logits, box_deltas, anchors_per_level, image_sizes)

    def raw_outputs(self, images: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """What the network says about every anchor, in either mode.

        Returns:
            cls_logits (B, A, K), before the sigmoid, float32; box_deltas (B, A, 4), float32; and the
            anchors, level by level (n, 4), together (A, 4) in the same order.
        """
        height, width = images.shape[-2:]
        if height % SIZE_DIVISOR or width % SIZE_DIVISOR:
            raise ValueError(f"images of {height}×{width} pixels: pad both sides to multiples of {SIZE_DIVISOR}")
        features = self.fpn(self.backbone((images - self.pixel_mean) / self.pixel_std))
        cls_logits, box_deltas = self.head(features)
        return cls_logits, box_deltas, self.anchor_generator([feature.shape[-2:] for feature in features])
