"""Bias, shortcut and ReLU in one kernel: values and gradients of PyTorch's operators, and where it is used."""

import sys
from pathlib import Path

import pytest
import torch
from ahead_of_time import run_compiler
from torch import nn

from detector.backbones import epilogue as module
from detector.backbones import norm as norm_module
from detector.backbones.epilogue import add_bias, bias_by_operators, by_operators, epilogue, usable
from detector.backbones.resnet import BasicBlock, Bottleneck, ResNet
from detector.towers import Tower

pytest.importorskip("triton")
DEVICES = [
    pytest.param("cpu", marks=pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels are compiled")),
    pytest.param("cuda", marks=pytest.mark.gpu),
]


def make_map(generator: torch.Generator, channels: int, dtype: torch.dtype, device: str) -> torch.Tensor:
    values = torch.randn(2, channels, 9, 7, generator=generator).to(device, dtype)
    return values.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("channels", [48, 100])  # no multiples of a tile
@pytest.mark.parametrize("has_shortcut", [True, False])
def test_values_and_gradients_are_those_of_the_operators(device, dtype, channels, has_shortcut):
    generator = torch.Generator().manual_seed(channels)
    maps = [make_map(generator, channels, dtype, device) for _ in range(1 + has_shortcut)]
    bias = torch.randn(channels, generator=generator).to(device)
    gradient = make_map(generator, channels, dtype, device).contiguous()  # as it comes from a pooling, say
    inputs = [each.requires_grad_() for each in (maps[0], bias, *maps[1:])]
    y = epilogue(inputs[0] * 1, *inputs[1:])
    found = torch.autograd.grad(y, inputs, gradient)
    doubles = [each.detach().double().requires_grad_() for each in inputs]
    expected = by_operators(*doubles) if has_shortcut else (doubles[0] + doubles[1][:, None, None]).relu()
    expected_gradients = torch.autograd.grad(expected, doubles, gradient.double())
    assert y.dtype == dtype and y.is_contiguous(memory_format=torch.channels_last)
    half_a_digit = 2**-7 if device == "cpu" else 2**-8  # of bfloat16; Triton's interpreter rounds towards 0
    tolerance = half_a_digit if dtype == torch.bfloat16 else 1e-6
    torch.testing.assert_close(y.double(), expected, rtol=tolerance, atol=1e-6)
    for one, other, given in zip(found, expected_gradients, inputs, strict=True):
        assert one.dtype == given.dtype
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("device", DEVICES)
def test_many_rows_are_summed_by_as_many_programs_as_may_be(device, monkeypatch):
    kernels = pytest.importorskip("detector.backbones.epilogue_triton")
    monkeypatch.setattr(kernels, "MOST_PROGRAMS", 4)  # two for each tile of the channels
    monkeypatch.setattr(kernels, "FEWEST_SUMS", 1)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 70, 11, 13, generator=generator).contiguous(memory_format=torch.channels_last).to(device)
    x.requires_grad_()
    bias = torch.zeros(70, device=device, requires_grad=True)
    epilogue(x * 1, bias).sum().backward()
    assert torch.equal(bias.grad, (x > 0).sum((0, 2, 3)).float())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_bias_alone(device, dtype):
    generator = torch.Generator().manual_seed(0)
    x, gradient = make_map(generator, 100, dtype, device).requires_grad_(), make_map(generator, 100, dtype, device)
    bias = torch.randn(100, generator=generator).to(device).requires_grad_()
    y = add_bias(x * 1, bias)
    found = torch.autograd.grad(y, (x, bias), gradient.contiguous())
    half_a_digit = 2**-7 if device == "cpu" else 2**-8  # of bfloat16; Triton's interpreter rounds towards 0
    tolerance = half_a_digit if dtype == torch.bfloat16 else 1e-6
    torch.testing.assert_close(y.double(), x.double() + bias[:, None, None], rtol=tolerance, atol=1e-6)
    assert torch.equal(found[0], gradient)
    torch.testing.assert_close(found[1], gradient.float().sum((0, 2, 3)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("device", DEVICES)
def test_what_is_no_number_stays_none(device):
    x = torch.tensor([float("nan"), -float("inf"), 2.0]).view(1, 3, 1, 1).to(device)
    assert epilogue(x, torch.zeros(3, device=device)).flatten().tolist()[1:] == [0.0, 2.0]
    assert x.flatten()[0].isnan()  # in the memory of x


@pytest.fixture
def everywhere(monkeypatch):
    """The kernels also where they run in Triton's interpreter; counts the calls."""
    if torch.cuda.is_available():
        pytest.skip("the kernels are compiled")
    calls = []

    def counted(x, bias, shortcut=None):
        calls.append(x.shape)
        return epilogue(x, bias, shortcut)

    for place in (norm_module, sys.modules["detector.towers"]):
        monkeypatch.setattr(place, "usable", lambda x, shortcut=None: True)
        monkeypatch.setattr(place, "epilogue", counted)
    return calls


def gradients(network: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    loss = network(images).square().mean()
    return [loss.detach(), *torch.autograd.grad(loss, list(network.parameters()))]


@pytest.mark.parametrize(
    ("block", "num_relus"),
    [
        (BasicBlock(16, 16, 1, "frozen_batch"), 2),
        (Bottleneck(16, 8, 2, "frozen_batch"), 3),
        (Bottleneck(32, 8, 1, "frozen_batch", groups=2, width=2), 3),
    ],
)
def test_a_block_learns_the_same_with_it(block, num_relus, everywhere, monkeypatch):
    torch.manual_seed(0)
    block.to(memory_format=torch.channels_last)
    for layer in block.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.bias, std=0.1)
    x = torch.randn(2, block.conv1.in_channels, 9, 8).contiguous(memory_format=torch.channels_last)
    found = gradients(block, x)
    assert len(everywhere) == num_relus
    monkeypatch.setattr(norm_module, "usable", lambda x, shortcut=None: False)
    for one, other in zip(found, gradients(block, x), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * other.abs().max().item())


def test_every_relu_of_the_backbone_can_be_one(everywhere):
    ResNet("resnet18", frozen_stages=5)(torch.randn(1, 3, 32, 32))
    assert len(everywhere) == 17


def test_a_tower_without_norm_learns_the_same_with_it(everywhere, monkeypatch):
    torch.manual_seed(0)
    tower, x = Tower(16, 3, group_norm=False, bias=True), torch.randn(2, 16, 5, 6)
    found = gradients(tower, x)
    assert len(everywhere) == 3
    monkeypatch.setattr(sys.modules["detector.towers"], "usable", lambda x: False)
    for one, other in zip(found, gradients(tower, x), strict=True):
        torch.testing.assert_close(one, other)


def test_the_operators_stay_in_charge_elsewhere():
    assert not usable(torch.zeros(1, 8, 4, 4).contiguous(memory_format=torch.channels_last))


@pytest.mark.gpu
def test_it_is_used_on_a_gpu_after_a_trial():
    x = torch.zeros(1, 8, 4, 4, device="cuda").contiguous(memory_format=torch.channels_last)
    assert usable(x) and usable(x.bfloat16(), x.bfloat16())
    assert not usable(x.double())


def test_kernels_that_give_other_numbers_are_not_used(monkeypatch):
    monkeypatch.setattr(module, "triton_works", lambda device: True)
    monkeypatch.setattr(module, "epilogue", lambda x, bias, shortcut: by_operators(x, bias, shortcut) * 1.01)
    monkeypatch.setattr(module, "add_bias", bias_by_operators)
    with pytest.warns(UserWarning, match="their kernels give other numbers here"):
        assert not module._kernels_work.__wrapped__(torch.device("cpu"))
    monkeypatch.setattr(module, "epilogue", by_operators)
    assert module._kernels_work.__wrapped__(torch.device("cpu"))
    with torch.device("meta"):  # whatever device is the default
        assert module._kernels_work.__wrapped__(torch.device("cpu"))


@pytest.mark.slow
def test_the_kernels_compile_for_a_gpu_without_spilling(tmp_path):
    lines = run_compiler(Path(__file__).with_name("compile_epilogue.py"), tmp_path)
    assert len(lines) == 12 and all(int(registers) <= 128 and spilled == "0" for *_, registers, spilled in lines)
