"""detector/backbones/winograd.py: the direct convolution in float64 is the oracle."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from detector.backbones.winograd import MIN_CHANNELS, use_winograd


class Parts(nn.Module):
    """As much of a detector as `use_winograd` sees, with one convolution."""

    winograd_parts = ("part",)

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.part, self.other = nn.Sequential(conv), copy.deepcopy(conv)


def layer(in_channels: int = MIN_CHANNELS, out_channels: int = MIN_CHANNELS + 8, **options) -> nn.Conv2d:
    """A convolution into which the algorithm was swapped, if it can be."""
    torch.manual_seed(0)
    conv = nn.Conv2d(in_channels, out_channels, 3, **{"padding": 1, **options})
    use_winograd(Parts(conv), training=True, evaluation=False)
    return conv


def is_direct(conv: nn.Conv2d, x: torch.Tensor) -> bool:
    return torch.equal(conv(x), F.conv2d(x, conv.weight, conv.bias, conv.stride, conv.padding, conv.dilation))


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
    assert not is_direct(conv, x)


@pytest.mark.parametrize(("shape", "channels"), [((1, MIN_CHANNELS, 12, 12), MIN_CHANNELS), ((2, 128, 40, 40), 128)])
def test_small_maps_and_narrow_layers_are_convolved_as_ever(shape, channels):
    assert is_direct(layer(shape[1], channels, bias=False), torch.randn(shape))


@pytest.mark.parametrize("options", [{"stride": 2}, {"padding": 0}, {"padding": 2, "dilation": 2}])
def test_other_convolutions_are_left_alone(options):
    assert is_direct(layer(**options), torch.randn(1, MIN_CHANNELS, 40, 40))


def test_autocast_and_float64_are_convolved_as_ever():
    conv, x = layer(), torch.randn(1, MIN_CHANNELS, 40, 40)
    with torch.autocast("cpu", torch.bfloat16):
        assert conv(x).dtype == torch.bfloat16
    assert conv.double()(x.double()).dtype == torch.float64


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("evaluation", [True, False])
def test_it_is_used_in_the_modes_asked_for_and_in_the_named_parts_also_by_a_copy(training, evaluation):
    x = torch.randn(1, MIN_CHANNELS, 40, 40)
    parts = Parts(nn.Conv2d(MIN_CHANNELS, MIN_CHANNELS, 3, padding=1))
    names = list(parts.state_dict())
    use_winograd(parts, training, evaluation)
    for each in (parts, copy.deepcopy(parts)):
        assert is_direct(each.train().part[0], x) != training
        assert is_direct(each.eval().part[0], x) != evaluation
        assert is_direct(each.other.train(), x) and is_direct(each.other.eval(), x)
    assert list(parts.state_dict()) == names
