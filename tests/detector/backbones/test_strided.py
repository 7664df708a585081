"""detector/backbones/strided.py: gradients in bfloat16 on a CPU, against float64."""

import pytest
import torch
from torch.nn import functional as F

from detector.backbones.strided import StridedConv2d


@pytest.mark.parametrize("autocast", [True, False])
@pytest.mark.parametrize("size", [(1, 1), (2, 1), (9, 1), (1, 2), (3, 4)])
def test_weights_get_their_gradient_whatever_the_memory_held(size, autocast):
    torch.manual_seed(0)
    conv = StridedConv2d(32, 32, 3, stride=2, padding=1)
    x = torch.randn(2, 32, *size).bfloat16().float()
    conv.weight.data = conv.weight.data.bfloat16().float()
    exact = conv.weight.detach().double().requires_grad_()
    expected = F.conv2d(x.double(), exact, conv.bias.detach().double(), stride=2, padding=1)
    expected.square().sum().backward()
    for _ in range(5):
        for power in range(10, 17):
            torch.full((1 << power,), 1e30)  # what a later tensor finds where its own numbers should be
        conv.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            y = (conv if autocast else conv.bfloat16())(x if autocast else x.bfloat16())
        y.double().square().sum().backward()
        assert torch.allclose(y.double(), expected, rtol=0.02, atol=0.02)
        error = (conv.weight.grad.double() - exact.grad).norm() / exact.grad.norm()
        assert error < 0.02


@pytest.mark.parametrize("stride", [1, 2])
def test_in_float32_it_is_the_usual_convolution(stride):
    torch.manual_seed(0)
    conv = StridedConv2d(8, 8, 3, stride, padding=1)
    x = torch.randn(2, 8, 4, 1)
    assert torch.equal(conv(x), F.conv2d(x, conv.weight, conv.bias, stride, padding=1))
