"""What the losses cost, counted instead of timed: memory, waiting for the GPU, passes over the logits."""

import os
import warnings
from collections import Counter
from operator import add

import pytest
import torch
from interpreted import shrink_programs
from operation_counter import OperationCounter
from ranking_batches import random_batch
from torch.utils._python_dispatch import _disable_current_modes

from losses import alrp_loss, ap_loss, focal_loss, rs_loss, triton_support

LOSSES = {
    "aLRP": lambda logits, targets, errors, entries=None: add(*alrp_loss(logits, targets, errors, entries=entries)),
    "AP": lambda logits, targets, errors, entries=None: ap_loss(logits, targets, entries=entries),
    "Rank & Sort": lambda logits, targets, errors, entries=None: add(
        *rs_loss(logits, targets, errors.detach(), entries=entries)
    ),
    "focal": lambda logits, targets, errors, entries=None: focal_loss(logits, targets),
}
VIEWS = ("view", "slice", "select", "unbind", "detach", "transpose", "t", "expand", "unsqueeze", "split", "alias")
VIEWS += (
    "empty",
    "empty_like",
    "new_empty",
    "as_strided",
    "view_as_real",
    "_unsafe_view",
    "squeeze",
    "split_with_sizes",
)
RANKING_LOSSES = [name for name in LOSSES if name != "focal"]


def record(loss, batch, entries=None):
    logits, targets, errors = batch
    logits, errors = logits.requires_grad_(), errors.requires_grad_()
    with OperationCounter() as recorder:
        LOSSES[loss](logits, targets, errors, entries).backward()
    return recorder


@pytest.fixture
def interpreter(monkeypatch):
    pytest.importorskip("triton")
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("Triton compiles its kernels in this process")
    from triton.runtime.interpreter import GridExecutor

    launch, launched = GridExecutor.__call__, Counter()

    def launch_unrecorded(executor, *args, **kwargs):
        launched[executor.fn.__name__] += 1
        with _disable_current_modes():  # what the interpreter copies, a GPU does not
            return launch(executor, *args, **kwargs)

    monkeypatch.setattr(GridExecutor, "__call__", launch_unrecorded)
    monkeypatch.setattr(triton_support, "usable", lambda logits: True)
    shrink_programs(monkeypatch)
    for module in ("ranking.triton_passes", "focal_triton"):
        monkeypatch.setattr(f"losses.{module}.BLOCK", 4096)
    return launched


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
    # Of Rank & Sort's two losses autograd makes a gradient each, and the sum.
    gradients = 3 if loss == "Rank & Sort" else 1
    assert [size for size in sizes if size >= num] == [4 * num] * gradients


@pytest.mark.parametrize("num_positives", [0, 1, 50])
@pytest.mark.parametrize("loss", LOSSES)
def test_kernels_wait_for_the_device_once_at_most(loss, num_positives, interpreter):
    recorder = record(loss, random_batch(5000, num_positives))
    assert recorder.waits.total() == (0 if loss == "focal" else 1), recorder.waits


@pytest.mark.parametrize(("loss", "most"), [("aLRP", 18), ("AP", 15), ("Rank & Sort", 21)])
def test_a_ranking_loss_takes_few_launches(loss, most, interpreter):
    """The host is what a step on a GPU waits for, and each kernel and each operator, but views, takes it time."""
    assert launches(loss, interpreter) <= most


@pytest.mark.parametrize(("loss", "most"), [("aLRP", 19), ("AP", 16)])
def test_more_positives_than_are_compared_in_pairs_take_a_sort_more(loss, most, interpreter, monkeypatch):
    monkeypatch.setattr("losses.ranking.triton_order.MAX_COUNTED", 50)
    assert launches(loss, interpreter) <= most  # a sort of many is about 15 launches


def launches(loss, launched):
    logits, targets, errors = random_batch(20_000, 100)
    counts = record(loss, (logits, targets.to(torch.int8), errors), (targets == 1).nonzero().squeeze(1)).counts
    operators = {name: count for name, count in counts.items() if name not in VIEWS}
    return launched.total() + sum(operators.values())


def test_a_chunk_more_on_a_cpu_takes_few_operators_views_included(one_thread, monkeypatch):
    monkeypatch.setattr("losses.ranking.logit_bins.CHUNK_CPU", 1000)
    few, many = (record("AP", random_batch(1000 * chunks, 5)).counts.total() for chunks in (10, 20))
    assert (many - few) / 10 <= 22


@pytest.mark.parametrize("loss", RANKING_LOSSES)
def test_operators_wait_for_the_device_once(loss, one_thread, monkeypatch):
    monkeypatch.setattr("losses.ranking.logit_bins.LogitBins._build_table", lambda bins: None)  # as on a GPU, both
    monkeypatch.setattr("losses.ranking.torch_passes.positive_entries", lambda t: (t == 1).nonzero().squeeze(1))
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
@pytest.mark.parametrize("num_positives", [1000, 4096, 10_000])
@pytest.mark.parametrize(("loss", "most"), [("aLRP", 20), ("AP", 18), ("Rank & Sort", 24)])
def test_a_gpu_launches_few_kernels(loss, most, num_positives):
    logits, targets, errors = (tensor.cuda() for tensor in random_batch(200_000, num_positives))
    batch, entries = (logits, targets.to(torch.int8), errors), (targets == 1).nonzero().squeeze(1)
    record(loss, batch, entries)  # compiles
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA], acc_events=True) as profile:
        LOSSES[loss](*batch, entries).backward()
        torch.cuda.synchronize()
    names = [event.name for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    assert len(names) <= most, names


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
