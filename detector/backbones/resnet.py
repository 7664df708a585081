"""ResNet (arXiv:1512.03385) and ResNeXt (arXiv:1611.05431) as pyramid backbones, stride in the 3×3 convolution.

Names of parameters and buffers are torchvision's, without `fc`, so that its ImageNet weights load.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from detector.backbones.deform import ModulatedDeformConv2d
from detector.backbones.norm import conv_norm, conv_norm_relu, make_norm


class BasicBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int, norm: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = make_norm(norm, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = make_norm(norm, channels)
        self.downsample = _shortcut(in_channels, channels * self.expansion, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        out = conv_norm_relu(x, self.conv1, self.bn1)
        return conv_norm_relu(out, self.conv2, self.bn2, _through(self.downsample, x))


class Bottleneck(nn.Module):
    """1×1, 3×3 (with the stride) and 1×1 convolutions beside a shortcut.

    Args:
        channels: output channels over 4.
        groups: of the 3×3 convolution. width: its channels, over `channels`.
        deformable: make it a `ModulatedDeformConv2d`.
    """

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int,
        norm: str,
        groups: int = 1,
        width: int = 1,
        deformable: bool = False,
    ) -> None:
        super().__init__()
        inner_channels, out_channels = channels * width, channels * self.expansion
        self.conv1 = nn.Conv2d(in_channels, inner_channels, 1, bias=False)
        self.bn1 = make_norm(norm, inner_channels)
        self.conv2: nn.Module
        if deformable:
            self.conv2 = ModulatedDeformConv2d(inner_channels, inner_channels, stride, groups)
        else:
            self.conv2 = nn.Conv2d(inner_channels, inner_channels, 3, stride, padding=1, groups=groups, bias=False)
        self.bn2 = make_norm(norm, inner_channels)
        self.conv3 = nn.Conv2d(inner_channels, out_channels, 1, bias=False)
        self.bn3 = make_norm(norm, out_channels)
        self.downsample = _shortcut(in_channels, out_channels, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        out = conv_norm_relu(x, self.conv1, self.bn1)
        out = conv_norm_relu(out, self.conv2, self.bn2)
        return conv_norm_relu(out, self.conv3, self.bn3, _through(self.downsample, x))


class Architecture(NamedTuple):
    """Blocks of a backbone: their kind, how many each stage has, and `Bottleneck`'s groups and width."""

    block: type[BasicBlock] | type[Bottleneck]
    depths: tuple[int, int, int, int]
    groups: int = 1
    width: int = 1


ARCHITECTURES = {
    "resnet18": Architecture(BasicBlock, (2, 2, 2, 2)),
    "resnet34": Architecture(BasicBlock, (3, 4, 6, 3)),
    "resnet50": Architecture(Bottleneck, (3, 4, 6, 3)),
    "resnet101": Architecture(Bottleneck, (3, 4, 23, 3)),
    "resnext101_64x4d": Architecture(Bottleneck, (3, 4, 23, 3), groups=64, width=4),
}


class ResNet(nn.Module):
    """Images to the feature maps C3, C4, C5 (strides 8, 16, 32), or from C2 (stride 4) on.

    Args:
        name: one of ARCHITECTURES.
        norm: see `make_norm`.
        frozen_stages: how many of (stem, layer1, ..., layer4), from the front, do not train: their
            parameters take no gradient, their BatchNorm stays in evaluation mode, and no graph is kept for
            them.
        deformable: modulated deformable 3×3 convolutions in layer2, layer3 and layer4; not for BasicBlocks.
        finest: number of the first map that is returned, 2 or 3.
    """

    def __init__(
        self,
        name: str,
        norm: str = "frozen_batch",
        frozen_stages: int = 0,
        deformable: bool = False,
        finest: int = 3,
    ) -> None:
        super().__init__()
        block, depths, groups, width = ARCHITECTURES[name]
        self.finest = finest
        self.out_channels = tuple(channels * block.expansion for channels in (64, 128, 256, 512)[finest - 2 :])
        self.frozen_stages = frozen_stages
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = make_norm(norm, 64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        make_stage = partial(_make_stage, block, norm=norm)
        if block is Bottleneck:
            make_stage = partial(make_stage, groups=groups, width=width)
        self.layer1 = make_stage(64, 64, depth=depths[0], stride=1)
        if deformable:
            make_stage = partial(make_stage, deformable=True)
        self.layer2 = make_stage(64 * block.expansion, 128, depth=depths[1], stride=2)
        self.layer3 = make_stage(128 * block.expansion, 256, depth=depths[2], stride=2)
        self.layer4 = make_stage(256 * block.expansion, 512, depth=depths[3], stride=2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        for module in self.modules():
            if isinstance(module, ModulatedDeformConv2d):
                module.reset_offsets()
        for module in self._frozen_modules():
            module.requires_grad_(False)
        self.train()

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) normalised images to [C3, C4, C5], or with C2 before them."""
        stages: list[Callable[[Tensor], Tensor]] = [self._stem, self.layer1, self.layer2, self.layer3, self.layer4]
        x, features = images, []
        for index, stage in enumerate(stages):
            with torch.set_grad_enabled(torch.is_grad_enabled() and index >= self.frozen_stages):
                x = stage(x)
            features.append(x)
        return features[self.finest - 1 :]

    def train(self, mode: bool = True) -> "ResNet":
        super().train(mode)
        for module in self._frozen_modules():
            module.eval()
        return self

    def _stem(self, images: Tensor) -> Tensor:
        return self.maxpool(conv_norm_relu(images, self.conv1, self.bn1))

    def _frozen_modules(self) -> list[nn.Module]:
        stages: list[list[nn.Module]] = [
            [self.conv1, self.bn1],
            [self.layer1],
            [self.layer2],
            [self.layer3],
            [self.layer4],
        ]
        return [module for stage in stages[: self.frozen_stages] for module in stage]


def _make_stage(
    block: type[BasicBlock] | type[Bottleneck],
    in_channels: int,
    channels: int,
    *,
    depth: int,
    stride: int,
    norm: str,
    **options: Any,
) -> nn.Sequential:
    first = block(in_channels, channels, stride, norm, **options)
    rest = [block(channels * block.expansion, channels, 1, norm, **options) for _ in range(depth - 1)]
    return nn.Sequential(first, *rest)


def _through(shortcut: nn.Sequential | None, x: Tensor) -> Tensor:
    return x if shortcut is None else conv_norm(x, *shortcut)


def _shortcut(in_channels: int, out_channels: int, stride: int, norm: str) -> nn.Sequential | None:
    if stride == 1 and in_channels == out_channels:
        return None
    conv = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
    return nn.Sequential(conv, make_norm(norm, out_channels))
