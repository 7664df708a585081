"""Regions of interest (RoIs) of a batch, and their maps, pooled from the pyramid.

B images, R regions of the batch, C channels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import roi_align

from detector.faster_rcnn.head import POOLED_SIDE
from losses.overlaps import box_area

FINEST_SIDE = 56  # pixels; regions of less than twice that √area are pooled from the finest map
LEVEL_EPS = 1e-6


class Regions(NamedTuple):
    """Boxes (R, 4) xyxy pixels, and the image (R,) int64 of each, ascending."""

    boxes: Tensor
    images: Tensor


class RegionPooler(NamedTuple):
    """RoIAlign from the level that fits a region's size (arXiv:1703.06870; arXiv:1612.03144, Eq. 1).

    Attributes:
        strides: of the maps, finest first.
        aligned: pixel centres are half a pixel off their corners, and bins have as many samples as pixels; else
            torchvision's detectors: they are not, and bins have two samples an axis.
    """

    strides: tuple[int, ...] = (4, 8, 16, 32)
    aligned: bool = True

    def levels(self, boxes: Tensor) -> Tensor:
        """(R, 4) boxes to (R,) indices of maps."""
        scale = box_area(boxes).sqrt() / FINEST_SIDE
        return torch.log2(scale + LEVEL_EPS).floor().clamp(0, len(self.strides) - 1).long()

    def __call__(self, features: Sequence[Tensor], regions: Regions) -> Tensor:
        """Maps (B, C, h, w), one a stride, to the pooled (R, C, 7, 7); in the type of the boxes, float32 at least.

        Waits for a GPU once: how many regions a level has decides shapes.
        """
        levels = self.levels(regions.boxes)
        order = levels.argsort(stable=True)
        counts = levels.bincount(minlength=len(self.strides)).tolist()
        rois = torch.cat([regions.images[:, None].to(regions.boxes.dtype), regions.boxes], dim=1)[order].split(counts)
        pooled = [
            roi_align(feature.to(own.dtype), own, POOLED_SIDE, 1 / stride, -1 if self.aligned else 2, self.aligned)
            for feature, own, stride in zip(features, rois, self.strides, strict=True)
        ]
        return torch.cat(pooled)[order.argsort()]
