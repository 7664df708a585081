"""detector/backbones/winograd.py: the direct convolution in float64 is the oracle."""

import pytest
import torch
from torch.nn import functional as F

from detector.backbones.winograd import MIN_CHANNELS, Conv3x3


def layer(in_channels: int = MIN_CHANNELS, out_channels: int = MIN_CHANNELS + 8, bias: bool = True) -> Conv3x3:
    torch.manual_seed(0)
    return Conv3x3(in_channels, out_channels, bias)


@pytest.mark.parametrize("size", [(2, 32, 32), (1, 33, 38), (3, 21, 40)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_outputs_and_gradients_are_those_of_the_direct_sum(size, memory_format):
    conv, (batch, height, width) = layer(), size
    x = torch.randn(batch, MIN_CHANNELS, height, width).contiguous(memory_format=memory_format).requires_grad_()
    inputs = (x, conv.weight, conv.bias)
    y, precise = conv(x), [value.detach().double().requires_grad_() for value in inputs]
    expected = F.conv2d(*precise, padding=1)
    grad = torch.randn_like(y)
    pairs = [(y, expected)]
    pairs += zip(
        torch.autograd.grad(y, inputs, grad), torch.autograd.grad(expected, precise, grad.double()), strict=True
    )
    for actual, reference in pairs:
        torch.testing.assert_close(actual.double(), reference, rtol=0, atol=1e-4 * reference.std().item())
    assert not torch.equal(y, F.conv2d(x, conv.weight, conv.bias, padding=1))  # it was the other algorithm


@pytest.mark.parametrize(("shape", "channels"), [((1, MIN_CHANNELS, 12, 12), MIN_CHANNELS), ((2, 128, 40, 40), 128)])
def test_small_maps_and_narrow_layers_are_convolved_as_ever(shape, channels):
    conv, x = layer(shape[1], channels, bias=False), torch.randn(shape)
    assert torch.equal(conv(x), F.conv2d(x, conv.weight, padding=1))


def test_autocast_and_float64_are_convolved_as_ever():
    conv, x = layer(), torch.randn(1, MIN_CHANNELS, 40, 40)
    with torch.autocast("cpu", torch.bfloat16):
        assert conv(x).dtype == torch.bfloat16
    assert conv.double()(x.double()).dtype == torch.float64


def test_names_and_start_values_are_conv2ds():
    conv = layer()
    torch.manual_seed(0)
    plain = torch.nn.Conv2d(MIN_CHANNELS, MIN_CHANNELS + 8, 3, padding=1)
    assert all(torch.equal(value, conv.state_dict()[name]) for name, value in plain.state_dict().items())
