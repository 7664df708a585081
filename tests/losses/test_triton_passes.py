"""The ranking losses by the Triton kernels: on the CPU in Triton's interpreter, on a GPU as they are.

There the same cases also run through PyTorch's operators.
"""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from ahead_of_time import run_compiler
from group_worker import as_strict_as_nccl
from rank_sort_oracle import dense_rank_sort
from ranking_batches import random_batch
from ranking_oracle import assert_close, dense
from test_ranking_losses import GOLDEN, assert_agrees

import losses
from losses import alrp_loss, ap_loss, focal_loss, rs_loss
from losses.ranking.torch_passes import make_passes


def run(device, logits, targets, loc_errors, delta=1.0):
    """Values and gradients of aLRP and AP Loss, on the CPU."""
    logits, loc_errors = (tensor.detach().to(device).requires_grad_() for tensor in (logits, loc_errors))
    cls, loc = alrp_loss(logits, targets.to(device), loc_errors, delta)
    ap = ap_loss(logits, targets.to(device), delta)
    results = (
        *(cls, loc, *torch.autograd.grad(cls, logits), *torch.autograd.grad(loc, loc_errors)),
        *(ap, *torch.autograd.grad(ap, logits)),
    )
    return [result.detach().cpu() for result in results]


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.float64, marks=pytest.mark.slow)], ids=str)
@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_agrees_with_the_authors_code(device, path, dtype, monkeypatch):
    monkeypatch.setattr("losses.ranking.triton_passes.BLOCK", 2048)  # fewer programs to interpret
    stored = np.load(path)
    names = ("alrp_cls", "alrp_loc", "alrp_grad_logits", "alrp_grad_loc", "ap_loss", "ap_grad_logits")
    logits, loc_errors = (torch.from_numpy(stored[name]).to(dtype) for name in ("logits", "loc_errors"))
    results = run(device, logits, torch.from_numpy(stored["targets"]), loc_errors, float(stored["delta"]))
    tolerances = (1e-10, 1e-10) if dtype == torch.float64 else (1e-6, 2e-6)
    assert_agrees(results, [torch.from_numpy(np.asarray(stored[name])) for name in names], *tolerances)


@pytest.mark.parametrize(
    "num, num_positives", [(256, 1), (1000, 1), (1025, 300), pytest.param(1000, 600, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("scale", [0.01, 2.0])
def test_any_number_of_blocks_and_bins(device, num, num_positives, scale):
    logits, targets, loc_errors = random_batch(num, num_positives, scale=scale)
    targets[: num // 3][targets[: num // 3] == -1] = 0  # some blocks without ignored entries
    results = run(device, logits, targets, loc_errors, 0.5)
    assert_agrees(results, dense(logits, targets, loc_errors, 0.5))


def test_blocks_of_every_kind(device):
    logits, targets, loc_errors = random_batch(1500, 20)
    targets[:1200] = 0
    logits[:256] = -50  # nothing relevant
    logits[256:512] = 0.25  # all in one bin
    targets[600] = -1
    targets[900], targets[1000:1100] = 1, -1
    loc_errors = torch.rand(int((targets == 1).sum()))
    results = run(device, logits, targets, loc_errors)
    assert_agrees(results, dense(logits, targets, loc_errors, 1.0))
    assert not results[2][:256].any() and results[2][256:512].all()


@pytest.mark.parametrize("delta", [1.0, 1e38])
def test_edges_beyond_the_largest_number(device, delta, monkeypatch):
    largest = torch.finfo(torch.float32).max
    logits = torch.tensor([largest, 0.0, 1.0, -largest, largest / 2, 3.0, 2.0])
    batch = logits, torch.tensor([1, 1, 0, 0, 0, 1, 0]), torch.tensor([0.2, 0.5, 0.7])
    results = run(device, *batch, delta)
    monkeypatch.setattr("losses.triton_support.usable", lambda logits: False)
    expected = run(torch.device("cpu"), *batch, delta)
    assert_agrees(results, expected)


def test_one_copy_of_the_histogram_does_too(device, monkeypatch):
    monkeypatch.setattr("losses.ranking.triton_histogram.MAX_COPIED", 1)
    batch = random_batch(1000, 30)
    assert_agrees(run(device, *batch), dense(*batch, 1.0))


def test_strided_logits_and_boolean_targets(device):
    logits, targets, loc_errors = random_batch(600, 12)
    wide = torch.stack([logits, torch.zeros_like(logits)], 1).to(device).requires_grad_()
    truth = torch.stack([targets == 1, targets == 0], 1).to(device)
    alrp_loss(wide[:, 0], truth[:, 0], loc_errors.to(device))[0].backward()
    expected = dense(logits, (targets == 1).int(), loc_errors, 1.0)
    assert_close(wide.grad[:, 0].cpu(), expected.grad_logits, 2e-6)
    assert not wide.grad[:, 1].any()


def test_gradient_follows_the_upstream_gradient_every_time(device):
    logits, targets, loc_errors = (tensor.to(device) for tensor in random_batch(600, 12))
    cls, _ = alrp_loss(logits.requires_grad_(), targets, loc_errors)
    gradients = [torch.autograd.grad(scale * cls, logits, retain_graph=True)[0] for scale in (1.0, -3.0, 1.0)]
    assert_close(gradients[1], -3 * gradients[0].double(), 1e-6)
    assert torch.equal(gradients[0], gradients[2])


@pytest.mark.parametrize("in_pairs", [True, False])
def test_rank_and_sort_equals_the_double_sum(device, in_pairs, monkeypatch):
    if not in_pairs:  # as with more positives than these
        monkeypatch.setattr("losses.ranking.triton_order.MAX_COUNTED", 10)
        monkeypatch.setattr("losses.rank_sort_triton.MAX_PAIRED", 10)
    logits, targets, ious = random_batch(700, 40)
    inputs = logits.to(device).requires_grad_()
    ranking, sorting = rs_loss(inputs, targets.to(device), ious.to(device))
    expected = dense_rank_sort(logits, targets, ious, 0.5)
    assert_close(ranking.cpu(), expected.ranking, 1e-6)
    assert_close(sorting.cpu(), expected.sorting, 1e-6)
    for value, wanted in ((ranking, expected.grad_ranking), (sorting, expected.grad_sorting)):
        assert_close(torch.autograd.grad(value, inputs)[0].cpu(), wanted, 2e-6)


@pytest.mark.parametrize("targets", [[0, 0, 0], [-1, -1, -1], [0, -1, 0], []], ids=str)
def test_without_positives_the_loss_is_an_attached_zero(device, targets):
    logits = torch.linspace(-1, 1, len(targets), device=device).requires_grad_()
    cls, loc = alrp_loss(logits, torch.tensor(targets, device=device), torch.zeros(0, device=device))
    assert cls.item() == loc.item() == 0
    (cls + loc).backward()
    assert logits.grad.shape == logits.shape and not logits.grad.any()


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # the interpreter computes with NumPy
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("place", [0, 1, 2, 3, 300], ids=["positive", "negative", "ignored", "no positive", "far"])
def test_a_logit_that_is_not_finite_shows_in_the_loss(device, bad, place):
    logits, targets = torch.linspace(-2, 2, 400), torch.zeros(400)
    if place != 3:
        targets[:3] = torch.tensor([1, 0, -1])
    logits[place] = bad
    logits = logits.to(device).requires_grad_()
    cls, loc = alrp_loss(logits, targets.to(device), torch.ones(int((targets == 1).sum()), device=device))
    assert cls.isnan() and loc.isnan()
    cls.backward()  # and does not raise
    assert logits.grad.shape == logits.shape


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
def test_kernels_compile_for_a_gpu_without_spilling(capability, tmp_path):
    lines = run_compiler(Path(__file__).with_name("compile_kernels.py"), tmp_path, capability)
    assert {kernel for kernel, *_ in lines} == launched_kernels()
    for kernel, dtype, *_, registers, spilled, shared in lines:
        assert int(spilled) == 0 or (dtype, capability) == ("fp64", 80), kernel  # float64 logits are for tests
        assert int(shared) <= 48 << 10, kernel  # what every GPU has
        if kernel in ("_histogram", "_weighted_steps", "_focal_sum", "_focal_gradient") and dtype != "fp64":
            # 64 let 1024 threads share a multiprocessor, 80 let 768
            assert int(registers) <= (64 if capability == 90 else 80), kernel


def launched_kernels():
    """Names of all that the package's source launches: kernel[grid](…), and focal loss _launch(kernel, …)."""
    sources = [path.read_text() for path in Path(losses.__file__).parent.rglob("*triton*.py")]
    patterns = (r"(_\w+)\[[^\]]*\]\(", r"_launch\((_\w+)")
    return {name for source in sources for pattern in patterns for name in re.findall(pattern, source)}


def test_a_process_group_changes_nothing_for_one_process(device, tmp_path, monkeypatch):
    for name in ("all_reduce", "all_gather"):
        monkeypatch.setattr(dist, name, as_strict_as_nccl(getattr(dist, name)))
    logits, targets, loc_errors = random_batch(700, 20)
    expected = run(device, logits, targets, loc_errors)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        inputs = logits.to(device).requires_grad_()
        parts = alrp_loss(inputs, targets.to(device), loc_errors.to(device), group=dist.group.WORLD)
        focal = focal_loss(inputs, targets.to(device), group=dist.group.WORLD)
        gradient = torch.autograd.grad(parts[0], inputs)[0]
    finally:
        dist.destroy_process_group()
    for actual, wanted in zip((*parts, gradient), expected[:3], strict=True):
        torch.testing.assert_close(actual.detach().cpu(), wanted, rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(focal.detach(), focal_loss(logits.to(device), targets.to(device)))


def test_a_process_without_entries_takes_part(device):
    empty = torch.zeros(0, device=device)
    passes = make_passes(empty)
    positives = torch.zeros(2, dtype=torch.float64, device=device)
    passes.make_bins(positives, positives, 1.0, torch.float32, empty)
    assert passes.find_entries(empty).tolist() == []
    assert not passes.histogram(empty, empty).any()
