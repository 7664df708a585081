"""Arithmetic of annotated boxes, the same for numbers, NumPy arrays and tensors: nothing here imports PyTorch.

Boxes are xyxy in continuous pixels, as everywhere in this project, or xywh (left, top, width, height) as in COCO files.
"""

from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

FRACTION_TOLERANCE = 0.01  # numbers beyond 0..1 by more are no fractions of an image's side

Size = tuple[int, int]  # (height, width)
Coordinate = TypeVar("Coordinate", float, np.ndarray, "Tensor")
Rows = TypeVar("Rows", np.ndarray, "Tensor")


def to_xywh(
    x1: Coordinate, y1: Coordinate, x2: Coordinate, y2: Coordinate
) -> tuple[Coordinate, Coordinate, Coordinate, Coordinate]:
    """COCO's form of one box, or of many by columns."""
    return x1, y1, x2 - x1, y2 - y1


def to_xyxy(
    x: Coordinate, y: Coordinate, w: Coordinate, h: Coordinate
) -> tuple[Coordinate, Coordinate, Coordinate, Coordinate]:
    """The corners of one box, or of many by columns, of COCO's form."""
    return x, y, x + w, y + h


def mirror_boxes(boxes: Rows, side: int, vertical: bool = False) -> Rows:
    """(n, 4) xyxy boxes in the mirror image: left to right, or top to bottom if `vertical`.

    Args:
        side: width of the image in pixels; its height if `vertical`.
    """
    axis, order = (1, [0, 3, 2, 1]) if vertical else (0, [2, 1, 0, 3])
    mirrored = boxes[:, order]  # the left edge becomes the right one
    mirrored[:, axis::2] = side - mirrored[:, axis::2]
    return mirrored


def scale_boxes(boxes: Rows, from_size: Size, to_size: Size) -> Rows:
    """(n, 4) xyxy boxes of an image of from_size (height, width), in pixels of that image resized to to_size."""
    y, x = (new / old for new, old in zip(to_size, from_size, strict=True))
    scaled = boxes * x
    scaled[:, 1::2] = boxes[:, 1::2] * y
    return scaled
