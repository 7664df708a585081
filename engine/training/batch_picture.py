"""A picture of the first batch: its images after augmentation, their boxes, and the anchors positive for them."""

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor, resize, to_pil_image

from detector import Detector
from detector.references import References
from engine.reporting.drawing import draw_detections

MAX_IMAGES = 16
COLUMNS = 4
MIN_SIDE = 320  # pixels that a tile has at least: captions need room
HEADER = 16  # pixels above each tile


@torch.no_grad()
def draw_batch(
    detector: Detector, images: Tensor, targets: Sequence[dict[str, Any]], class_names: Sequence[str]
) -> Image.Image:
    """At most 16 images of a batch on one sheet: boxes in the colours of their classes, positive anchors white.

    Args:
        detector: whose reference boxes and matcher decide what is positive, where it has such.
        images: (B, 3, H, W) uint8, as the loader gives them; targets: of the same images.
    """
    targets = [{key: target[key].cpu() for key in ("boxes", "labels", "crowd")} for target in targets][:MAX_IMAGES]
    size = images.shape[-2], images.shape[-1]
    positives = [_positive_boxes(detector.references, size, target) for target in targets]

    scale = -(-MIN_SIDE // min(size))
    height, width = (scale * side for side in size)
    columns = min(COLUMNS, len(targets))
    rows = -(-len(targets) // columns)
    sheet = Image.new("RGB", (columns * (width + 2), rows * (height + HEADER + 2)), "white")
    for index, (image, target) in enumerate(zip(images, targets, strict=False)):
        own = positives[index]
        enlarged = _with_anchors(resize(image.cpu(), [height, width], antialias=True), scale * own)
        tile = draw_detections(enlarged, scale * target["boxes"], target["labels"], None, class_names)
        row, column = divmod(index, columns)
        x, y = column * (width + 2), row * (height + HEADER + 2)
        text = f"{len(target['boxes'])} objects, {len(own)} positive anchors"
        ImageDraw.Draw(sheet).text((x + 2, y + 1), text, fill="black")
        sheet.paste(to_pil_image(tile), (x, y + HEADER))
    return sheet


def _positive_boxes(references: References | None, size: tuple[int, int], target: dict[str, Any]) -> Tensor:
    """(n, 4) reference boxes of an image that are positive for its objects."""
    if references is None:
        return target["boxes"][:0]
    boxes_per_level = [boxes.cpu() for boxes in references.boxes(size)]
    matches = references.match(boxes_per_level, target["boxes"].masked_fill(target["crowd"][:, None], 0))
    return torch.cat(boxes_per_level)[matches >= 0]


def _with_anchors(image: Tensor, anchors: Tensor) -> Tensor:
    """(3, H, W) image with 1-pixel outlines of the (n, 4) anchors, half transparent."""
    canvas = to_pil_image(image)
    lines = ImageDraw.Draw(canvas, "RGBA")
    for anchor in anchors.tolist():
        lines.rectangle(
            [anchor[0] + 1, anchor[1] + 1, *anchor[2:]], outline=(0, 0, 0, 80)
        )  # a shadow, for light images
        lines.rectangle(anchor, outline=(255, 255, 255, 160))
    return pil_to_tensor(canvas)
