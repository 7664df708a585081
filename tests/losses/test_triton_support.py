"""When kernels take over, and that everything works where they cannot."""

import os

import pytest
import torch
from interpreted import shrink_programs
from ranking_batches import random_batch

from losses import alrp_loss, triton_support
from losses.ranking.torch_passes import TorchPasses, make_passes


class OnGpu:
    """As much of a tensor as the choice asks for."""

    is_cuda = True
    device = torch.device("cuda", 0)
    dtype = torch.float32


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
    monkeypatch.setattr(triton_support, "triton_works", lambda device: True)
    monkeypatch.setattr(triton_support, "kernels_are_right", lambda device, dtype: True)
    monkeypatch.setattr(triton_support, "_works", {})
    assert triton_support.usable(OnGpu)
    torch.use_deterministic_algorithms(True)
    try:
        assert not triton_support.usable(OnGpu)
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_kernels_are_tried_against_operators(dtype, monkeypatch):
    pytest.importorskip("triton")
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("Triton compiles its kernels in this process")
    shrink_programs(monkeypatch)
    results = triton_support._results

    def on_either(*inputs):
        kernels = next(paths)
        monkeypatch.setattr(triton_support, "usable", lambda logits: kernels)
        return results(*inputs)

    paths = iter([False, True])
    monkeypatch.setattr(triton_support, "_results", on_either)
    assert triton_support.kernels_are_right(torch.device("cpu"), dtype)


@pytest.mark.parametrize("fault", ["wrong", "failing"])
def test_kernels_that_are_wrong_or_fail_are_left_alone(fault, monkeypatch, recwarn):
    results, calls = triton_support._results, []

    def on_either(*inputs):
        calls.append(inputs)
        if len(calls) == 1:
            return results(*inputs)
        if fault == "failing":
            raise RuntimeError("ptxas fatal: out of registers\nmore")
        return [1.001 * result for result in results(*inputs)]

    monkeypatch.setattr(triton_support, "_results", on_either)
    assert not triton_support.kernels_are_right(torch.device("cpu"), torch.float32)
    reason = {"wrong": "their kernels give other numbers here", "failing": "ptxas fatal: out of registers"}[fault]
    assert [str(warning.message) for warning in recwarn] == [f"the losses use slower operators: {reason}"]


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
