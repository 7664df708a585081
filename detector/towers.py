"""Parts of heads that all levels of a pyramid share."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detector.backbones.epilogue import epilogue, usable


class Tower(nn.Sequential):
    """3×3 convolutions with ReLU, and with `group_norm` GroupNorm before it: 32 groups of two channels or more."""

    def __init__(self, channels: int, num_convs: int, group_norm: bool, bias: bool) -> None:
        layers: list[nn.Module] = []
        for _ in range(num_convs):
            layers.append(nn.Conv2d(channels, channels, 3, padding=1, bias=bias))
            if group_norm:
                # a group of one channel has a single value on a map of one cell, and no variance
                layers.append(nn.GroupNorm(min(32, channels // 2), channels))
            layers.append(nn.ReLU(inplace=True))
        super().__init__(*layers)
        self.has_norm = group_norm

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, h, w) to the same."""
        if self.has_norm or not usable(x):
            return super().forward(x)
        for conv in (layer for layer in self if isinstance(layer, nn.Conv2d)):
            assert conv.bias is not None
            x = epilogue(F.conv2d(x, conv.weight, padding=1), conv.bias)
        return x


def initialise(head: nn.Module) -> None:
    """Convolutions N(0, 0.01) without bias, as of all heads on a pyramid (arXiv:1708.02002, section 4.1)."""
    for module in head.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.01)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def convolve(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """layer(x), (B, n, h, w), for a 3×3 convolution.

    Exported, a single channel is the first of two: how one alone lies in memory would depend on the size.
    """
    if layer.out_channels > 1 or layer.bias is None or not torch.compiler.is_exporting():
        return layer(x)
    return F.conv2d(x, layer.weight.repeat(2, 1, 1, 1), layer.bias.repeat(2), padding=1)[:, :1]


def by_reference(maps: Tensor, width: int) -> Tensor:
    """(B, n·width, h, w), the n reference boxes of a cell major, to (B, h·w·n, width)."""
    maps = maps.permute(0, 2, 3, 1)
    if torch.compiler.is_exporting():  # reshape copies or not by the size, on which no exported program is to depend
        maps = maps.clone(memory_format=torch.contiguous_format)
    # shape[0], as len() would fix the batch size of an exported program
    return maps.reshape(maps.shape[0], -1, width)
