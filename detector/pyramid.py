"""Backbone, pyramid and a head shared by its levels: what the families have in common."""

from abc import abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from detector.assignment import Assignment
from detector.contract import IMAGENET_MEAN, IMAGENET_STD, SIZE_DIVISOR, Detections, Detector, Targets
from detector.monitor import Monitor
from detector.shape_graphs import ShapeGraphs
from losses.balance import SelfBalance


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
        return self.maps(self.normalised(images))

    def maps(self, normalised: Tensor) -> list[Tensor]:
        """What `features` gives, of what `normalised` gives."""
        return self.fpn(self.backbone(normalised))

    def normalised(self, images: Tensor) -> Tensor:
        """The images as the backbone takes them. Raises ValueError as `features`."""
        _check_sides(images)
        mean, std = self.pixel_mean.to(images.dtype), self.pixel_std.to(images.dtype)
        return (images - mean) / std

    def compile_network(self) -> None:
        """Compiles backbone, pyramid and head; on a CPU the backbone alone, as the others are slower compiled.

        The objective is never compiled, as its shapes change with the number of objects.
        """
        on_cpu = self.pixel_mean.device.type == "cpu"
        for part in (self.backbone,) if on_cpu else (self.backbone, self.fpn, self.head):
            part.compile()


class DenseDetector(PyramidDetector):
    """Detector of one stage: what the head says of every place makes losses, or detections.

    Attributes:
        objective: from predictions and targets to losses; `objective.loss` is a `losses.loss.Loss`.
    """

    objective: Any

    def __init__(self, backbone: nn.Module, fpn: nn.Module, head: nn.Module) -> None:
        super().__init__(backbone, fpn, head)
        self.graphs = ShapeGraphs()

    def forward(
        self,
        images: Tensor,
        targets: Targets | None = None,
        image_sizes: Sequence[tuple[int, int]] | None = None,
        group: ProcessGroup | None = None,
        monitor: Monitor | None = None,
    ) -> dict[str, Tensor] | Detections:
        """See `Detector`."""
        if self.training and targets is None:
            raise ValueError("training needs targets; call .eval() for detections")
        _check_sides(images)
        height, width = images.shape[-2:]
        in_float32 = partial(torch.autocast, images.device.type, enabled=False)
        if self.training and targets is not None:
            # Before the network, as the host waits here for the number of positives: it then waits for the matching
            # alone, and the GPU later not for the host while that launches the losses.
            with in_float32():
                assignment = self.assignment(targets, (height, width))
            outputs = self.raw_outputs(images)
            # Ranks and IoUs need all digits: from here on computed in float32, whatever the network computes in.
            with in_float32():
                return self.losses(outputs, targets, group, monitor, assignment)
        if self.graphs.fit(images):
            outputs = self.graphs.run(self.raw_outputs, images, self)
        else:
            outputs = self.raw_outputs(images)
        with in_float32():
            return self.detections(outputs, image_sizes or [(height, width)] * len(images))

    def assignment(self, targets: Targets, image_size: tuple[int, int]) -> Assignment | None:
        """What every place of a batch of images of this (height, width) has to predict; None where that takes what the
        network says of them."""
        return None

    @abstractmethod
    def raw_outputs(self, images: Tensor) -> Any:
        """Predictions of the network for every place, in either mode."""

    @abstractmethod
    def detections(self, outputs: Any, image_sizes: Sequence[tuple[int, int]]) -> Detections:
        """Detections of a batch by what `raw_outputs` gave."""

    def losses(
        self,
        outputs: Any,
        targets: Targets,
        group: ProcessGroup | None,
        monitor: Monitor | None,
        assignment: Assignment | None,
    ) -> dict[str, Tensor]:
        """Losses of a batch by what `raw_outputs` and `assignment` gave."""
        known = {} if assignment is None else {"assignment": assignment}
        return self.objective(*outputs, targets, group, monitor, **known)

    def balances(self) -> dict[str, SelfBalance]:
        balance: SelfBalance | None = self.objective.loss.balance
        return {} if balance is None else {"": balance}


def _check_sides(images: Tensor) -> None:
    height, width = images.shape[-2:]
    if height % SIZE_DIVISOR or width % SIZE_DIVISOR:
        raise ValueError(f"images of {height}×{width} pixels: pad both sides to multiples of {SIZE_DIVISOR}")
