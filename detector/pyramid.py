"""Backbone, pyramid and a head shared by its levels: what the families that predict densely have in common."""

import torch
from torch import Tensor, nn

from detector.contract import IMAGENET_MEAN, IMAGENET_STD, SIZE_DIVISOR, Detector


class PyramidDetector(Detector):
    """Detector whose head predicts from the levels of a pyramid."""

    class_head: tuple[str, ...] = ("head.cls_logits.weight", "head.cls_logits.bias")
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, backbone: nn.Module, fpn: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.fpn = fpn
        self.head = head
        # all their digits, for a network in float64
        for name, values in (("pixel_mean", IMAGENET_MEAN), ("pixel_std", IMAGENET_STD)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float64).view(3, 1, 1), persistent=False)

    def features(self, images: Tensor) -> list[Tensor]:
        """Maps of the levels, (B, C, h, w) each, of images (B, 3, H, W) in 0..1, by the backbone and the pyramid.

        Raises:
            ValueError: H or W is no multiple of 32.
        """
        height, width = images.shape[-2:]
        if height % SIZE_DIVISOR or width % SIZE_DIVISOR:
            raise ValueError(f"images of {height}×{width} pixels: pad both sides to multiples of {SIZE_DIVISOR}")
        mean, std = self.pixel_mean.to(images.dtype), self.pixel_std.to(images.dtype)
        return self.fpn(self.backbone((images - mean) / std))

    def compile_network(self) -> None:
        """Compiles backbone, pyramid and head; on a CPU the backbone alone, as the others are slower compiled.

        The objective is never compiled, as its shapes change with the number of objects.
        """
        on_cpu = self.pixel_mean.device.type == "cpu"
        for part in (self.backbone,) if on_cpu else (self.backbone, self.fpn, self.head):
            part.compile()
