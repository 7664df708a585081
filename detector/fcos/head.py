"""Classes, distances and centreness of every point, by a head that all pyramid levels share."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from detector.towers import Tower, by_reference, convolve, initialise
from losses.precision import at_least_float32

Branch = Literal["box", "cls"]


class FCOSHead(nn.Module):
    """Two towers of 3×3 convolutions, GroupNorm and ReLU (arXiv:1904.01355).

    Args:
        in_channels: channels of the pyramid, and of the towers.
        num_classes: K. num_levels: of the pyramid; each has a learnable factor for its distances.
        num_convs: convolutions before the last, in each tower.
        centerness: the tower that centreness comes from, or None for a head without.
        exponential: distances are exp(x), in pixels, as first published; or ReLU(x), in strides.
        prior: score of every class and point before training.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        num_levels: int = 5,
        num_convs: int = 4,
        centerness: Branch | None = "box",
        exponential: bool = False,
        prior: float = 0.01,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.branch = centerness
        self.exponential = exponential
        self.cls_tower = Tower(in_channels, num_convs, group_norm=True, bias=True)
        self.box_tower = Tower(in_channels, num_convs, group_norm=True, bias=True)
        self.cls_logits = nn.Conv2d(in_channels, num_classes, 3, padding=1)
        self.distances = nn.Conv2d(in_channels, 4, 3, padding=1)
        self.centerness = None if centerness is None else nn.Conv2d(in_channels, 1, 3, padding=1)
        self.level_scales = nn.Parameter(torch.ones(num_levels))
        initialise(self)
        assert self.cls_logits.bias is not None
        nn.init.constant_(self.cls_logits.bias, -math.log((1 - prior) / prior))

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Feature maps, level by level, to the predictions of all A points, float32 at least.

        In training logits of half the digits stay as they come: some losses read them so.

        Returns:
            cls_logits (B, A, K), distances (B, A, 4) >= 0 to the left, top, right and bottom side, and, if there is
            such a branch, centerness_logits (B, A), in the order level, row, column.
        """
        cls_logits, distances, centerness = [], [], []
        for x, scale in zip(features, self.level_scales, strict=True):
            of_classes, of_boxes = self.cls_tower(x), self.box_tower(x)
            cls_logits.append(by_reference(convolve(self.cls_logits, of_classes), self.num_classes))
            # the exponential of bfloat16 would be coarse
            scaled = scale * at_least_float32(by_reference(self.distances(of_boxes), 4))
            distances.append(scaled.exp() if self.exponential else scaled.relu())
            if self.centerness is not None:
                tower_out = of_boxes if self.branch == "box" else of_classes
                centerness.append(at_least_float32(by_reference(convolve(self.centerness, tower_out), 1)).squeeze(-1))
        logits = torch.cat(cls_logits, 1)
        logits = logits if self.training else at_least_float32(logits)
        return logits, torch.cat(distances, 1), *([torch.cat(centerness, 1)] if centerness else [])
