"""How well anchors fit the objects of a data set, found out before any training."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from data import CocoDetection, padded_size
from data.transforms import scale_boxes
from detector import ModelConfig
from detector.boxes import box_area
from detector.build import STRIDES, build_anchor_generator
from detector.monitor import REACHED_IOU, best_anchor_ious

SIZES = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, float("inf"))}  # COCO's, pixels²
IMAGES = 300  # looked at, evenly spaced
MIN_OBJECTS = 20  # of a class or size that is judged


@dataclass(frozen=True)
class AnchorFit:
    """Objects of a sample of images, at the size that training resizes to, and the anchors nearest to them.

    Attributes:
        objects: how many.
        missed: share of them whose best anchor has an IoU below REACHED_IOU: "all", and each size and class of at
            least MIN_OBJECTS objects.
    """

    objects: int
    missed: dict[str, float]


def anchor_fit(dataset: CocoDetection, model: ModelConfig, size: tuple[int, int]) -> AnchorFit:
    """Compares the objects, crowd regions aside, with the anchors; augmentation is left out.

    Args:
        size: (height, width) that training resizes to.
    """
    boxes, labels = _sample(dataset, size)
    missed = _best_ious(boxes, model, size) < REACHED_IOU
    area, label = box_area(torch.cat(boxes)), torch.cat(labels)
    groups = {"all": torch.ones_like(missed)}
    groups |= {name: (area >= low) & (area < high) for name, (low, high) in SIZES.items()}
    groups |= {f"class {name!r}": label == index for index, name in enumerate(dataset.class_names)}
    shares = {
        name: missed[group].float().mean().item()
        for name, group in groups.items()
        if group.sum() >= MIN_OBJECTS or (name == "all" and group.any())
    }
    return AnchorFit(len(missed), shares)


def best_base_scale(dataset: CocoDetection, model: ModelConfig, size: tuple[int, int]) -> float:
    """The model.anchor_base_scale, among powers of √2 from ½ to 16, at which the best anchors fit the objects best."""
    boxes, _ = _sample(dataset, size)
    scales = [2 ** (power / 2) for power in range(-2, 9)]
    models = {scale: model.model_copy(update={"anchor_base_scale": scale}) for scale in scales}
    return max(scales, key=lambda scale: (_best_ious(boxes, models[scale], size) >= 0.5).float().mean().item())


def _sample(dataset: CocoDetection, size: tuple[int, int]) -> tuple[list[Tensor], list[Tensor]]:
    """Boxes (n, 4) and labels (n,) of the objects of each image of the sample."""
    boxes, labels = [torch.empty(0, 4)], [torch.empty(0, dtype=torch.int64)]
    for index in range(0, len(dataset), -(-len(dataset) // IMAGES)):
        target, (height, width) = dataset.objects(index), dataset.sizes[index].tolist()
        objects = ~target["crowd"]
        boxes.append(scale_boxes(target["boxes"], (height, width), size)[objects])
        labels.append(target["labels"][objects])
    return boxes, labels


def _best_ious(boxes: Sequence[Tensor], model: ModelConfig, size: tuple[int, int]) -> Tensor:
    shapes = [tuple(-(-side // stride) for side in padded_size(size)) for stride in STRIDES]
    anchors = torch.cat(build_anchor_generator(model)(shapes))
    return torch.cat([best_anchor_ious(anchors, image_boxes) for image_boxes in boxes])
