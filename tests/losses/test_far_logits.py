"""Finite logits of any size, on every path: the losses and gradients of the sums over all pairs."""

import os

import pytest
import torch
from drawn_batches import as_tensors
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreted import shrink_programs
from rank_sort_oracle import dense_rank_sort
from ranking_batches import assert_balanced
from ranking_oracle import assert_close, dense

from losses import alrp_loss, ap_loss, focal_loss, rs_loss, triton_support
from losses.ranking.positions import FAR_APART, REACH

LARGEST = torch.finfo(torch.float32).max
PATHS = ["table of cells", "binary search", "triton interpreter"]
FEW = settings(deadline=None, derandomize=True, max_examples=12)
SLOW_KERNELS = [*PATHS[:2], pytest.param(PATHS[2], marks=pytest.mark.slow)]

# Near the places where something changes, and their neighbours among the float32 numbers.
CORNERS = torch.tensor([1e-45, 1e-3, 5.0, REACH, 2.0**24, 2.0**25, 1e12, 1e16, 1e20, 1e30, 3e38, LARGEST])
CORNERS = torch.cat([torch.nextafter(CORNERS, torch.tensor(0.0)), CORNERS, CORNERS[:-1] * 1.0000001])
LOGITS = st.one_of(
    st.sampled_from([sign * logit for logit in CORNERS.tolist() for sign in (1, -1)]),
    st.integers(-8, 8).map(lambda k: k / 4),
    st.integers(-4, 4).map(lambda k: 1e9 + 64 * k),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
)
LABELS = st.sampled_from([1, 1, 0, 0, -1])
DELTAS = st.sampled_from([1e-3, 0.1, 0.5, 1.0, 100.0])


def entries(logits):
    return st.lists(st.tuples(logits, LABELS, st.floats(0, 1, width=32)), min_size=1, max_size=40)


@pytest.fixture(scope="module", params=PATHS)
def path(request):
    """A GPU has no table of cells, nor have deterministic algorithms there; kernels are tried in the interpreter."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param != "table of cells":
            patch.setattr("losses.ranking.logit_bins.LogitBins._build_table", lambda bins: None)
        if request.param == "triton interpreter":
            pytest.importorskip("triton")
            if os.environ.get("TRITON_INTERPRET") != "1":
                pytest.skip("Triton compiles its kernels in this process")
            shrink_programs(patch)
            patch.setattr(triton_support, "usable", lambda logits: True)
        yield request.param


def run(logits, targets, errors, delta):
    """aLRP's, AP's, and Rank & Sort's values and gradients, as `expected` has them."""
    logits, errors = logits.detach().requires_grad_(), errors.detach().requires_grad_()
    cls, loc = alrp_loss(logits, targets, errors, delta)
    ap = ap_loss(logits, targets, delta)
    ranking, sorting = rs_loss(logits, targets, errors, delta)
    (grad_loc,) = torch.autograd.grad(loc, errors)
    gradients = [torch.autograd.grad(part, logits)[0] for part in (cls, ap, ranking, sorting)]
    return [cls, loc, ap, ranking, sorting, grad_loc], gradients


def expected(logits, targets, errors, delta):
    pairs, rank_sort = dense(logits, targets, errors, delta), dense_rank_sort(logits, targets, errors, delta)
    values = [pairs.cls, pairs.loc, pairs.ap, rank_sort.ranking, rank_sort.sorting, pairs.grad_loc]
    return values, [pairs.grad_logits, pairs.ap_grad, rank_sort.grad_ranking, rank_sort.grad_sorting]


def assert_exact(logits, targets, errors, delta, value=1e-6, gradient=2e-6):
    values, gradients = run(logits, targets, errors, delta)
    wanted_values, wanted_gradients = expected(logits, targets, errors, delta)
    for actual, wanted in zip(values, wanted_values, strict=True):
        assert_close(actual, wanted, value)
    for actual, wanted in zip(gradients, wanted_gradients, strict=True):
        assert_close(actual, wanted, gradient)
        if actual.dtype in (torch.float32, torch.float64):
            assert_balanced(actual)
        assert not actual[targets == -1].any()


@FEW
@given(entries(LOGITS), DELTAS)
def test_any_finite_logits(path, entries, delta):
    assert_exact(*as_tensors(entries), delta)


# float64 logits are for tests; on kernels test_triton_passes.py has the authors' too
@pytest.mark.parametrize("path", SLOW_KERNELS, indirect=True)
@FEW
@given(
    entries(
        st.one_of(
            LOGITS,
            st.integers(-3, 3).map(lambda k: 1e15 + k / 4),
            st.integers(-3, 3).map(lambda k: 2.0**53 + 2 * k),
            st.integers(-3, 3).map(lambda k: 1e5 + k / 8),
            st.sampled_from([1e100, -1e100, 1.7e308, -1.7e308]),
        )
    ),
    DELTAS,
)
def test_any_finite_logits_in_float64(path, entries, delta):
    logits, targets, errors = as_tensors(entries, torch.float64)
    assert_exact(logits, targets, errors.double(), delta, 1e-9, 1e-8)


# on kernels above in float32, which they compute in; test_drawn_kernels.py has how they read these
@pytest.mark.parametrize("path", SLOW_KERNELS, indirect=True)
@FEW
@given(entries(LOGITS), st.sampled_from([torch.bfloat16, torch.float16]))
def test_any_finite_logits_in_low_precision(path, entries, dtype):
    logits, targets, errors = as_tensors(entries)
    logits = logits.clamp(torch.finfo(dtype).min, torch.finfo(dtype).max).to(dtype)
    assert_exact(logits, targets, errors, 1.0, 2e-6, torch.finfo(dtype).eps)


@pytest.mark.parametrize("outlier", [1e16, 3e38])
@pytest.mark.parametrize("place", ["negative", "positive", "low positive", "ignored", "all positives", "every other"])
def test_a_batch_with_outliers(path, place, outlier):
    generator = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(700, generator=generator), torch.zeros(700)
    targets[:40], targets[-50:] = 1, -1
    where = {
        "negative": slice(300, 301),
        "positive": slice(7, 8),
        "low positive": slice(7, 8),
        "ignored": slice(-9, None),
        "all positives": slice(40),
        "every other": slice(None, None, 2),
    }[place]
    logits[where] = -outlier if place == "low positive" else outlier
    assert_exact(logits, targets, torch.rand(40, generator=generator), 1.0)


@pytest.mark.parametrize("spread", [0.5, 2.0, FAR_APART / 2, FAR_APART, 2 * FAR_APART])
def test_positives_in_steps_of_any_size_beyond_the_reach(path, spread):
    steps = torch.arange(40).double()
    logits = torch.cat([2 * REACH + spread * steps, 2 * REACH + spread * (steps + 0.25)])  # exact in float32
    targets = (torch.arange(80) < 40).int()
    assert_exact(logits.float(), targets, torch.linspace(0, 1, 40), 1.0)


def test_a_negative_far_above_counts_as_one_just_above(path):
    near, targets = torch.tensor([5.0, 1.0, 0.5, 0.0, -1.0]), torch.tensor([0, 1, 0, 1, 0])
    far = near.clone()
    far[0] = 1e20
    results = [run(logits, targets, torch.ones(2), 1.0) for logits in (far, near)]
    for parts in zip(*results, strict=True):
        assert all(torch.equal(*part) for part in zip(*parts, strict=True))


# --- focal loss ---------------------------------------------------------------------------------------------


@pytest.fixture(params=["operators", "kernels"])
def kernels(request, monkeypatch):
    if request.param == "kernels":
        pytest.importorskip("triton")
        if os.environ.get("TRITON_INTERPRET") != "1":
            pytest.skip("Triton compiles its kernels in this process")
    monkeypatch.setattr(triton_support, "usable", lambda logits: request.param == "kernels")


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")  # the interpreter computes with NumPy
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_focal_loss_of_any_finite_logits(kernels, dtype, gamma):
    logits = torch.tensor([3e38, 3e38, -3e38, 200.0, -200.0, 1e20, -1e20, 0.0, 3e38, -3e38], dtype=dtype)
    targets = torch.tensor([0, 0, 0, 1, 0, 1, 1, 1, -1, -1])
    loss = focal_loss(logits.requires_grad_(), targets, gamma=gamma)
    (gradient,) = torch.autograd.grad(loss, logits)
    margin = torch.where(targets == 1, logits, -logits).detach().double()
    weight = torch.where(targets == 1, 0.25, 0.75) * (targets >= 0)
    right, wrong = torch.sigmoid(margin), torch.sigmoid(-margin)
    log_right = torch.nn.functional.logsigmoid(margin)
    assert_close(loss, -(weight * wrong**gamma * log_right).sum() / 4, 1e-6)
    slope = weight * wrong**gamma * (gamma * right * log_right - wrong)
    assert_close(gradient, torch.where(targets == 1, slope, -slope) / 4, max(1e-6, torch.finfo(dtype).eps))


def test_focal_losses_of_many_may_add_up_beyond_the_largest_number(kernels):
    logits = torch.full((100,), -3e38, requires_grad=True)
    loss = focal_loss(logits, torch.ones(100))
    loss.backward()
    assert loss.item() == pytest.approx(0.25 * 3e38)
    assert_close(logits.grad, torch.full((100,), -0.25 / 100).double(), 1e-6)
