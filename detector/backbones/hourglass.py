"""Hourglass-52 (arXiv:1603.06937, as in CornerNet, arXiv:1808.01244): one fine map that takes in the whole image."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detector.backbones.norm import make_norm
from detector.backbones.strided import StridedConv2d

CHANNELS = (256, 256, 384, 384, 384, 512)  # at strides 4 to 128
BLOCKS = (2, 2, 2, 2, 2, 4)  # residual blocks of every path at that stride


class Residual(nn.Module):
    """Two 3×3 convolutions beside a shortcut."""

    def __init__(self, in_channels: int, channels: int, norm: str, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = StridedConv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = make_norm(norm, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = make_norm(norm, channels)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != channels:
            conv = nn.Conv2d(in_channels, channels, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, make_norm(norm, channels))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu_()))
        return (out + self.shortcut(x)).relu_()


class Level(nn.Module):
    """The map of one stride beside what the coarser ones say of it.

    Args:
        channels, blocks: of this stride and of the coarser ones.
        norm: see `make_norm`.
    """

    def __init__(self, channels: Sequence[int], blocks: Sequence[int], norm: str) -> None:
        super().__init__()
        own, coarser, count = channels[0], channels[1], blocks[0]
        self.beside = nn.Sequential(*(Residual(own, own, norm) for _ in range(count)))
        self.down = nn.Sequential(
            Residual(own, coarser, norm, stride=2), *(Residual(coarser, coarser, norm) for _ in range(count - 1))
        )
        self.below: nn.Module
        if len(channels) > 2:
            self.below = Level(channels[1:], blocks[1:], norm)
        else:
            self.below = nn.Sequential(*(Residual(coarser, coarser, norm) for _ in range(blocks[1])))
        self.up = nn.Sequential(
            *(Residual(coarser, coarser, norm) for _ in range(count - 1)), Residual(coarser, own, norm)
        )

    def forward(self, x: Tensor) -> Tensor:
        beside = self.beside(x)
        coarse = self.up(self.below(self.down(x)))
        return beside + F.interpolate(coarse, size=beside.shape[-2:], mode="nearest")  # an odd size halves upwards


class Hourglass(nn.Module):
    """Images to one map of stride 4, 256 channels: one hourglass of depth 5, trained from scratch.

    Args:
        norm: see `make_norm`; "batch" as published.
    """

    out_channels = (CHANNELS[0],)

    def __init__(self, norm: str = "batch") -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 128, 7, stride=2, padding=3, bias=False)
        self.bn1 = make_norm(norm, 128)
        self.reduce = Residual(128, CHANNELS[0], norm, stride=2)
        self.levels = Level(CHANNELS, BLOCKS, norm)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) normalised images to [(B, 256, H / 4, W / 4)]."""
        return [self.levels(self.reduce(torch.relu_(self.bn1(self.conv1(images)))))]
