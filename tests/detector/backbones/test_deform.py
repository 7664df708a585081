"""detector/backbones/deform.py: a plain convolution where nothing is deformed, and samples where the offsets say."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from detector.backbones.deform import ModulatedDeformConv2d
from detector.backbones.resnet import ResNet


@pytest.mark.parametrize(("stride", "groups"), [(1, 1), (2, 1), (1, 4), (2, 4)])
def test_it_starts_as_a_plain_convolution_of_half_strength(stride, groups):
    torch.manual_seed(0)
    conv, x = ModulatedDeformConv2d(8, 12, stride, groups), torch.randn(2, 8, 9, 7)
    expected = F.conv2d(x, conv.weight / 2, stride=stride, padding=1, groups=groups)
    torch.testing.assert_close(conv(x), expected)


def test_offsets_move_the_samples_and_weights_scale_them():
    # every one of the 9 places looks one row up and two columns right, at a weight of sigmoid(30) = 1
    conv, x = ModulatedDeformConv2d(4, 4), torch.randn(1, 4, 10, 10)
    with torch.no_grad():
        conv.conv_offset.bias[:18:2] = -1.0
        conv.conv_offset.bias[1:18:2] = 2.0
        conv.conv_offset.bias[18:] = 30.0
        moved, plain = conv(x), F.conv2d(x, conv.weight, padding=1)
    torch.testing.assert_close(moved[..., 3:, :6], plain[..., 2:-1, 2:8])


def test_it_learns_and_stays_float32_under_autocast():
    conv, x = ModulatedDeformConv2d(4, 4), torch.randn(1, 4, 6, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = conv(x.bfloat16())
    out.square().sum().backward()
    assert out.dtype == torch.float32
    assert all(parameter.grad.abs().sum() > 0 for parameter in conv.parameters())


def test_a_network_in_float64_stays_in_it():
    conv, x = ModulatedDeformConv2d(4, 4), torch.randn(1, 4, 6, 6)
    with torch.no_grad():
        nn.init.normal_(conv.conv_offset.weight)
        expected, found = conv(x), conv.double()(x.double())
    assert found.dtype == torch.float64
    torch.testing.assert_close(found.float(), expected, rtol=1e-4, atol=1e-5)


def test_the_last_three_stages_of_a_backbone_are_deformable_and_start_undeformed():
    backbone = ResNet("resnet50", "frozen_batch", deformable=True)
    names = [name for name, module in backbone.named_modules() if isinstance(module, ModulatedDeformConv2d)]
    assert names == [f"layer{i}.{j}.conv2" for i, depth in ((2, 4), (3, 6), (4, 3)) for j in range(depth)]
    assert not any(backbone.get_submodule(name).conv_offset.weight.any() for name in names)
