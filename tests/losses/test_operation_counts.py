"""What the losses cost, counted instead of timed: memory, waiting for the GPU, passes over the logits."""

import os
import warnings

import pytest
import torch
from operation_counter import OperationCounter
from ranking_batches import random_batch
from torch.utils._python_dispatch import _disable_current_modes

from losses import alrp_loss, ap_loss, focal_loss, rs_loss, triton_support

LOSSES = {
    "aLRP": lambda logits, targets, errors: sum(alrp_loss(logits, targets, errors)),
    "AP": lambda logits, targets, errors: ap_loss(logits, targets),
    "Rank & Sort": lambda logits, targets, errors: sum(rs_loss(logits, targets, errors.detach())),
    "focal": lambda logits, targets, errors: focal_loss(logits, targets),
}
VIEWS = ("view", "slice", "select", "unbind", "detach", "transpose", "t", "expand", "unsqueeze", "split", "alias")
VIEWS += ("empty", "empty_like", "new_empty", "as_strided", "view_as_real", "_unsafe_view", "squeeze")
RANKING_LOSSES = [name for name in LOSSES if name != "focal"]


def record(loss, batch):
    logits, targets, errors = batch
    logits, errors = logits.requires_grad_(), errors.requires_grad_()
    with OperationCounter() as recorder:
        LOSSES[loss](logits, targets, errors).backward()
    return recorder


@pytest.fixture
def interpreter(monkeypatch):
    pytest.importorskip("triton")
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("Triton compiles its kernels in this process")
    from triton.runtime.interpreter import GridExecutor

    launch = GridExecutor.__call__

    def launch_unrecorded(*args, **kwargs):
        with _disable_current_modes():  # what the interpreter copies, a GPU does not
            return launch(*args, **kwargs)

    monkeypatch.setattr(GridExecutor, "__call__", launch_unrecorded)
    monkeypatch.setattr("losses.ranking.logit_bins.LogitBins._build_table", lambda bins: None)  # for CPUs
    monkeypatch.setattr(triton_support, "usable", lambda logits: True)


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # what other threads do is not recorded
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("loss", LOSSES)
def test_no_tensor_grows_with_positives_times_negatives(loss, one_thread):
    num, num_positives = 1_000_000, 2000
    recorder = record(loss, random_batch(num, num_positives))
    assert max(recorder.sizes) <= 8 * num  # a P x N matrix of booleans would have 2000 * num; tables have a fixed size


@pytest.mark.parametrize("loss", LOSSES)
def test_kernels_make_nothing_as_long_as_the_logits_but_gradients(loss, interpreter):
    num = 50_000
    sizes = record(loss, random_batch(num, 20)).sizes
    # Of Rank & Sort's two losses autograd makes a gradient each, one of them from zeros, and the sum.
    gradients = 4 if loss == "Rank & Sort" else 1
    assert [size for size in sizes if size >= num] == [4 * num] * gradients


@pytest.mark.parametrize("num_positives", [0, 1, 50])
@pytest.mark.parametrize("loss", LOSSES)
def test_kernels_wait_for_the_device_once_at_most(loss, num_positives, interpreter):
    recorder = record(loss, random_batch(5000, num_positives))
    assert recorder.waits.total() == (0 if loss == "focal" else 1), recorder.waits


@pytest.mark.parametrize(("loss", "most"), [("aLRP", 149), ("AP", 123)])
def test_a_ranking_loss_takes_few_operations(loss, most, interpreter):
    """On a GPU each is a launch, of 2 µs for a thousand positives, and the host is what a step waits for."""
    counts = record(loss, random_batch(20_000, 100)).counts
    assert counts["sort"] == 2  # of the positives, and of the breakpoints
    assert sum(count for name, count in counts.items() if name not in VIEWS) <= most


@pytest.mark.parametrize("loss", RANKING_LOSSES)
def test_operators_wait_for_the_device_once(loss, one_thread, monkeypatch):
    monkeypatch.setattr("losses.ranking.logit_bins.LogitBins._build_table", lambda bins: None)  # as on a GPU, both
    monkeypatch.setattr("losses.ranking.torch_passes.true_indices", lambda mask: mask.nonzero().squeeze(1))
    recorder = record(loss, random_batch(5000, 50))
    assert recorder.waits == {"nonzero": 1}


@pytest.mark.gpu
@pytest.mark.parametrize("kernels", [True, False], ids=["triton", "torch"])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_gpu_is_waited_for_once_at_most(loss, kernels, monkeypatch):
    monkeypatch.setattr(triton_support, "usable", lambda logits: kernels)
    batch = [tensor.cuda() for tensor in random_batch(100_000, 500)]
    record(loss, batch)  # compiles
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            LOSSES[loss](*batch).backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waits = [warning for warning in caught if "called a synchronizing CUDA operation" in str(warning.message)]
    assert len(waits) == (0 if loss == "focal" else 1), [str(wait.message) for wait in waits]


@pytest.mark.gpu
@pytest.mark.parametrize("loss", LOSSES)
def test_kernels_take_bounded_memory_beyond_the_gradient(loss):
    logits, targets, errors = (tensor.cuda() for tensor in random_batch(8_000_000, 1000))
    logits.requires_grad_()
    LOSSES[loss](logits, targets, errors).backward()  # compiles, and allocates the gradient
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    logits.grad = None
    LOSSES[loss](logits, targets, errors).backward()
    assert torch.cuda.max_memory_allocated() - before <= 64 << 20
