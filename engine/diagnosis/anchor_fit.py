"""The fit of anchors to the objects of a data set, measured before any training."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from data import CocoDetection, padded_size
from data.boxes import scale_boxes
from detector import ModelConfig, build_references
from detector.monitor import REACHED_IOU, best_reference_ious
from engine.metrics.matching import SIZES
from engine.run.datasets import training_resize
from engine.run.groups import DataConfig
from losses.overlaps import box_area

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


def anchor_fit(
    dataset: CocoDetection, model: ModelConfig, data: DataConfig, num_images: int = IMAGES
) -> AnchorFit | None:
    """Compares objects, crowd regions aside, with anchors; images as `data` resizes them, augmentation left out. None
    for a detector that starts from no boxes."""
    if build_references(model) is None:
        return None
    images = _sample(dataset, data, num_images)
    missed = _best_ious(images, model) < REACHED_IOU
    area = box_area(torch.cat([image.boxes for image in images]))
    label = torch.cat([image.labels for image in images])
    groups = {"all": torch.ones_like(missed)}
    groups |= {name: (area >= low) & (area < high) for name, (low, high) in SIZES.items()}
    groups |= {f"class {name!r}": label == index for index, name in enumerate(dataset.class_names)}
    shares = {
        name: missed[group].float().mean().item()
        for name, group in groups.items()
        if group.sum() >= MIN_OBJECTS or (name == "all" and group.any())
    }
    return AnchorFit(len(missed), shares)


def best_base_scale(dataset: CocoDetection, model: ModelConfig, data: DataConfig, num_images: int = IMAGES) -> float:
    """The model.anchor_base_scale, among powers of √2 from ½ to 16, with anchors of IoU ≥ 0.5 for the most objects."""
    images = _sample(dataset, data, num_images)
    scales = [2 ** (power / 2) for power in range(-2, 9)]
    models = {scale: model.model_copy(update={"anchor_base_scale": scale}) for scale in scales}
    return max(scales, key=lambda scale: (_best_ious(images, models[scale]) >= 0.5).float().mean().item())


class _Image(NamedTuple):
    """An image of the sample: resized (height, width), boxes (n, 4) and labels (n,) of its objects."""

    size: tuple[int, int]
    boxes: Tensor
    labels: Tensor


def _sample(dataset: CocoDetection, data: DataConfig, num_images: int) -> list[_Image]:
    transform, images = training_resize(data), []
    with_objects = dataset.images_with_objects() or [0]
    for index in with_objects[:: -(-len(with_objects) // num_images)]:
        target, (height, width) = dataset.objects(index), dataset.sizes[index].tolist()
        objects, size = ~target["crowd"], transform.output_size((height, width))
        boxes = scale_boxes(target["boxes"], (height, width), size)
        images.append(_Image(size, boxes[objects], target["labels"][objects]))
    return images


def _best_ious(images: Sequence[_Image], model: ModelConfig) -> Tensor:
    references = build_references(model)
    assert references is not None
    boxes_of = [torch.cat(references.boxes(padded_size(image.size))) for image in images]
    return torch.cat([best_reference_ious(boxes, image.boxes) for boxes, image in zip(boxes_of, images, strict=True)])
