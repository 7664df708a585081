"""Cells and points of the five levels of an image of (height, width)."""

import torch

from detector.anchors import AnchorGenerator
from detector.fcos.build import STRIDES


def cells_of(size: tuple[int, int]) -> list[torch.Tensor]:
    generator = AnchorGenerator(STRIDES, (1.0,), (1.0,), 1.0, shift=0.5)
    return generator([(-(-size[0] // stride), -(-size[1] // stride)) for stride in STRIDES])


def points_of(size: tuple[int, int]) -> list[torch.Tensor]:
    """Row by row (column · s + s // 2, row · s + s // 2), written out."""
    points = []
    for s in STRIDES:
        rows, columns = -(-size[0] // s), -(-size[1] // s)
        points.append(torch.tensor([(c * s + s // 2, r * s + s // 2) for r in range(rows) for c in range(columns)]))
    return [level.float() for level in points]
