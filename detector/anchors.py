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
    """

    def __init__(
        self,
        strides: Sequence[int] = (8, 16, 32, 64, 128),
        ratios: Sequence[float] = (0.5, 1.0, 2.0),
        octave_scales: Sequence[float] = (1.0, 2**0.5),
        base_scale: float = 4.0,
    ) -> None:
        super().__init__()
        self.strides = tuple(strides)
        self.num_anchors = len(ratios) * len(octave_scales)  # per cell
        # √ratio and then its inverse, in float32: the rounding of the released models
        height_factors = torch.tensor(ratios, dtype=torch.float32).sqrt()
        scales = torch.tensor([base_scale * scale for scale in octave_scales], dtype=torch.float32)
        widths = torch.outer(1 / height_factors, scales).flatten()  # ratio-major
        heights = torch.outer(height_factors, scales).flatten()
        unit_cell = torch.stack([-widths, -heights, widths, heights], dim=1) / 2
        cell_anchors = torch.stack([unit_cell * stride for stride in self.strides])  # (levels, num_anchors, 4)
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
        if self._latest is None or self._latest[0] != key:
            self._latest = (key, self._generate(feature_shapes))
        return list(self._latest[1])

    def _generate(self, feature_shapes: Sequence[tuple[int, int]]) -> list[Tensor]:
        levels = zip(feature_shapes, self.strides, self.cell_anchors, strict=True)
        return [_grid_anchors(shape, stride, cell) for shape, stride, cell in levels]


def _grid_anchors(shape: tuple[int, int], stride: int, cell_anchors: Tensor) -> Tensor:
    rows, columns = (torch.arange(n, device=cell_anchors.device, dtype=torch.float32) * stride for n in shape)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    centers = torch.stack([x, y, x, y], dim=-1)  # (h, w, 4)
    return (centers[:, :, None] + cell_anchors).reshape(-1, 4)
