"""Modulated deformable convolution (DCNv2, arXiv:1811.11168)."""

import torch
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from losses.precision import at_least_float32


class ModulatedDeformConv2d(nn.Module):
    """3×3 convolution that samples its input at learned places, each with a learned weight in 0..1.

    Starts as a plain convolution at half its strength: all offsets zero, all weights ½.

    Args:
        in_channels, out_channels, stride, groups: as of `nn.Conv2d`; the padding is 1, there is no bias.
    """

    KERNEL = 3

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, self.KERNEL, self.KERNEL))
        # for each of the 9 places dy and dx, one after the other, then the 9 weights before their sigmoid
        self.conv_offset = nn.Conv2d(in_channels, 3 * self.KERNEL**2, self.KERNEL, stride, padding=1)
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        self.reset_offsets()

    def reset_offsets(self) -> None:
        """To the regular grid."""
        nn.init.zeros_(self.conv_offset.weight)
        if self.conv_offset.bias is not None:
            nn.init.zeros_(self.conv_offset.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, h, w) to (B, out_channels, h / stride, w / stride), in float32, of float64 in that."""
        # bfloat16 resolves no more than whole pixels beyond 128, and the operator has no CPU kernel for it
        with torch.autocast(x.device.type, enabled=False):
            x = at_least_float32(x)
            num_places = self.KERNEL**2
            offsets, weights = self.conv_offset(x).split([2 * num_places, num_places], dim=1)
            return deform_conv2d(x, offsets, self.weight, stride=self.stride, padding=1, mask=weights.sigmoid())
