"""Anchors of every pyramid level."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class AnchorGenerator(nn.Module):
    """Boxes of fixed shapes centred on the cells of each level: centre (column·stride, row·stride).

    An anchor measures base_scale·stride·scale/√ratio by base_scale·stride·scale·√ratio (width by height, the
    ratio is h / w), is neither rounded nor clipped and may cross the image border.

    Args:
        strides: pixels from cell to cell, one per level.
        ratios: heights over widths.
        octave_scales: sizes relative to the level's base size.
        base_scale: base size in strides.
        whole_pixels: torchvision's rules. Sizes are truncated and then corners rounded to whole pixels, and cells
            are (image side) // (map side) apart, each axis by itself, where the image is the first level's.
        shift: of the centres, in strides; 0.5 puts them in the middle of their cells.
    """

    cell_anchors: Tensor

    def __init__(
        self,
        strides: Sequence[int] = (8, 16, 32, 64, 128),
        ratios: Sequence[float] = (0.5, 1.0, 2.0),
        octave_scales: Sequence[float] = (1.0, 2**0.5),
        base_scale: float = 4.0,
        whole_pixels: bool = False,
        shift: float = 0.0,
    ) -> None:
        super().__init__()
        self.whole_pixels = whole_pixels
        self.strides = tuple(strides)
        self.num_anchors = len(ratios) * len(octave_scales)  # per cell
        # √ratio and then its inverse, in float32: the rounding of the released models
        height_factors = torch.tensor(ratios, dtype=torch.float32).sqrt()
        sides = [[base_scale * scale * stride for scale in octave_scales] for stride in self.strides]
        sizes = torch.tensor(sides, dtype=torch.float64)[:, None]  # (levels, 1, scales)
        sizes = (sizes.trunc() if whole_pixels else sizes).float()
        widths = ((1 / height_factors)[:, None] * sizes).flatten(1)  # (levels, num_anchors), ratio-major
        heights = (height_factors[:, None] * sizes).flatten(1)
        cell_anchors = torch.stack([-widths, -heights, widths, heights], dim=2) / 2  # (levels, num_anchors, 4)
        cell_anchors = cell_anchors.round() if whole_pixels else cell_anchors
        cell_anchors = cell_anchors + shift * torch.tensor(self.strides)[:, None, None] if shift else cell_anchors
        self.register_buffer("cell_anchors", cell_anchors, persistent=False)
        self._latest: tuple[object, list[Tensor]] | None = None

    def forward(self, feature_shapes: Sequence[tuple[int, int]]) -> list[Tensor]:
        """Anchors for feature maps of the given (h, w), one per stride.

        Returns:
            Per level (h·w·num_anchors, 4) xyxy pixels, float32, in the order row, column, ratio, scale. The
            latest result is kept and returned again for equal shapes: do not change it in place.
        Raises:
            ValueError: the number of shapes is not the number of strides.
        """
        if len(feature_shapes) != len(self.strides):
            raise ValueError(f"{len(feature_shapes)} feature maps for {len(self.strides)} strides")
        if torch.compiler.is_exporting():  # the shapes are symbols, and nothing made of them may be kept
            return self._generate(feature_shapes)
        key = (tuple(tuple(shape) for shape in feature_shapes), self.cell_anchors.device)
        latest = self._latest  # read once, as another thread may be at other shapes
        if latest is None or latest[0] != key:
            latest = self._latest = (key, self._generate(feature_shapes))
        return list(latest[1])

    def of_image(self, image_size: tuple[int, int]) -> list[Tensor]:
        """Anchors of an image of (height, width), multiples of 32, whose maps have a cell for each begun stride."""
        return self([(-(-image_size[0] // s), -(-image_size[1] // s)) for s in self.strides])

    def _generate(self, feature_shapes: Sequence[tuple[int, int]]) -> list[Tensor]:
        first, levels = feature_shapes[0], zip(feature_shapes, self.strides, self.cell_anchors, strict=True)
        return [_grid_anchors(shape, self._steps(shape, first, stride), cell) for shape, stride, cell in levels]

    def _steps(self, shape: tuple[int, int], first_shape: tuple[int, int], stride: int) -> tuple[int, int]:
        """Pixels from row to row and from column to column."""
        if not self.whole_pixels:
            return stride, stride
        height, width = (side * self.strides[0] // own for side, own in zip(first_shape, shape, strict=True))
        return height, width


def _grid_anchors(shape: tuple[int, int], steps: tuple[int, int], cell_anchors: Tensor) -> Tensor:
    rows, columns = (
        torch.arange(n, device=cell_anchors.device, dtype=torch.float32) * step
        for n, step in zip(shape, steps, strict=True)
    )
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    centers = torch.stack([x, y, x, y], dim=-1)  # (h, w, 4)
    return (centers[:, :, None] + cell_anchors).reshape(-1, 4)
