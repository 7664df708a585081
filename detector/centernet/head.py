"""Heat maps, tags and offsets of three kinds of keypoints on one map of stride 4."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from detector.centernet.pooling import (
    CenterPooling,
    CornerPooling,
    bottom_pool,
    left_pool,
    make_conv_norm_relu,
    right_pool,
    top_pool,
)

KEYPOINTS = ("top left", "bottom right", "centre")
HEAT_BIAS = -2.19  # logit of every cell before training: a score of 0.1


class Maps(NamedTuple):
    """What the head says of B images: keypoints in the order of KEYPOINTS, tags of the two corners, float32 or float64.

    cls_logits (B, 3, K, h, w), before the sigmoid; tags (B, 2, h, w); offsets (B, 3, 2, h, w), (x, y) of the keypoint
    in its cell.
    """

    cls_logits: Tensor
    tags: Tensor
    offsets: Tensor


class CenterNetHead(nn.Module):
    """One convolution, and a branch with its own pooling for each kind of keypoint (arXiv:1904.08189).

    Args:
        in_channels: of the map. channels: of the branches, even; half of them are pooled.
        num_classes: K.
        norm: see `detector.centernet.pooling.branch_norm`.
    """

    def __init__(self, in_channels: int, num_classes: int, channels: int = 256, norm: str = "batch") -> None:
        super().__init__()
        inner = channels // 2
        self.stem = make_conv_norm_relu(in_channels, channels, norm)
        self.branches = nn.ModuleList(
            [
                CornerPooling(channels, inner, norm, top_pool, left_pool),
                CornerPooling(channels, inner, norm, bottom_pool, right_pool),
                CenterPooling(channels, inner, norm),
            ]
        )
        self.cls_logits = nn.ModuleList(_predictor(channels, num_classes) for _ in KEYPOINTS)
        self.tags = nn.ModuleList(_predictor(channels, 1) for _ in KEYPOINTS[:2])
        self.offsets = nn.ModuleList(_predictor(channels, 2) for _ in KEYPOINTS)
        for predictor in self.cls_logits:
            nn.init.constant_(predictor.get_parameter("2.bias"), HEAT_BIAS)

    def forward(self, features: Sequence[Tensor]) -> Maps:
        """The map (B, in_channels, h, w), alone in a list, to what is predicted on it."""
        (feature,) = features
        x = self.stem(feature)
        of_branches = [branch(x) for branch in self.branches]
        return Maps(
            torch.stack([self.cls_logits[i](y) for i, y in enumerate(of_branches)], dim=1),
            torch.cat([self.tags[i](y) for i, y in enumerate(of_branches[:2])], dim=1),
            torch.stack([self.offsets[i](y) for i, y in enumerate(of_branches)], dim=1),
        )


def _predictor(channels: int, outputs: int) -> nn.Sequential:
    hidden = nn.Conv2d(channels, channels, 3, padding=1)
    return nn.Sequential(hidden, nn.ReLU(inplace=True), nn.Conv2d(channels, outputs, 1))
