"""When kernels take over, and that everything works where they cannot."""

import os

import pytest
import torch
from ranking_batches import random_batch

from losses import alrp_loss, triton_support
from losses.ranking.torch_passes import TorchPasses, make_passes


class OnGpu:
    """As much of a tensor as the choice asks for."""

    is_cuda = True
    device = torch.device("cuda", 0)


def test_cpu_tensors_take_operators():
    assert not triton_support.usable(torch.zeros(3))
    assert isinstance(make_passes(torch.zeros(3)), TorchPasses)


def test_without_a_working_triton_one_warning_says_why(monkeypatch, recwarn):
    def fail(*args, **kwargs):
        raise RuntimeError("Failed to find C compiler.\nPlease specify via CC")

    monkeypatch.setattr(torch, "ones", fail)
    triton_support.triton_works.cache_clear()
    assert not triton_support.usable(OnGpu) and not triton_support.usable(OnGpu)
    assert [str(warning.message) for warning in recwarn] == [
        "Triton does not work here, slower operators take its place: Failed to find C compiler."
    ]
    triton_support.triton_works.cache_clear()


def test_repeatable_results_take_operators(monkeypatch):
    for trial in ("triton_works", "_ranking_works"):
        monkeypatch.setattr(triton_support, trial, lambda device: True)
    assert triton_support.usable(OnGpu)
    torch.use_deterministic_algorithms(True)
    try:
        assert not triton_support.usable(OnGpu)
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.gpu
def test_on_a_gpu_with_triton_kernels_take_over():
    pytest.importorskip("triton")
    assert triton_support.usable(torch.zeros(3, device="cuda"))


@pytest.mark.gpu
@pytest.mark.parametrize("num_positives", [1, 3000])
def test_kernels_equal_operators_on_many_logits(num_positives, monkeypatch):
    logits, targets, loc_errors = (tensor.cuda() for tensor in random_batch(5_000_001, num_positives))
    results = []
    for kernels in (True, False):
        monkeypatch.setattr(triton_support, "usable", lambda logits, kernels=kernels: kernels)
        inputs = logits.clone().requires_grad_()
        cls, loc = alrp_loss(inputs, targets, loc_errors)
        results.append((cls, loc, *torch.autograd.grad(cls, inputs)))
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-12)


def test_one_positive_can_be_ranked_in_the_interpreter():
    pytest.importorskip("triton")
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("Triton compiles its kernels in this process")
    assert triton_support._ranking_works(torch.device("cpu"))
