"""aLRP and AP Loss against the authors' outputs, a double sum over all pairs, and their laws."""

from pathlib import Path

import numpy as np
import pytest
import torch
from ranking_batches import random_batch
from ranking_oracle import assert_close, dense

from losses import alrp_loss, ap_loss

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.npz"))


def run(logits, targets, loc_errors, delta=1.0):
    """Values and gradients of both losses."""
    logits, loc_errors = logits.detach().requires_grad_(), loc_errors.detach().requires_grad_()
    cls, loc = alrp_loss(logits, targets, loc_errors, delta)
    ap = ap_loss(logits, targets, delta)
    (grad_logits,) = torch.autograd.grad(cls, logits)
    (grad_loc,) = torch.autograd.grad(loc, loc_errors)
    (ap_grad,) = torch.autograd.grad(ap, logits)
    return cls, loc, grad_logits, grad_loc, ap, ap_grad


def assert_agrees(results, expected, loss=1e-6, gradient=2e-6):
    for actual, wanted, tolerance in zip(
        results, expected, (loss, loss, gradient, gradient, loss, gradient), strict=True
    ):
        assert_close(actual, wanted, tolerance)


# --- authors' outputs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_agrees_with_the_authors_code(path, dtype):
    stored = np.load(path)
    names = ("alrp_cls", "alrp_loc", "alrp_grad_logits", "alrp_grad_loc", "ap_loss", "ap_grad_logits")
    logits, loc_errors = (torch.from_numpy(stored[name]).to(dtype) for name in ("logits", "loc_errors"))
    results = run(logits, torch.from_numpy(stored["targets"]), loc_errors, float(stored["delta"]))
    tolerances = (1e-10, 1e-10) if dtype == torch.float64 else (1e-6, 2e-6)
    assert_agrees(results, [torch.from_numpy(np.asarray(stored[name])) for name in names], *tolerances)
    if dtype == torch.float32:  # small entries are as exact as large ones
        np.testing.assert_allclose(results[2].numpy(), stored["alrp_grad_logits"], rtol=1e-6, atol=1e-12)


def test_golden_files_are_there():
    assert len(GOLDEN) == 10


# --- worked by hand -----------------------------------------------------------------------------------------


def test_case_worked_by_hand():
    # Positives p1 = 1, p2 = 0; negatives n1 = 1, n2 = -0.5; one ignored. delta = 1: H(x) = x/2 + 1/2.
    # N_FP(1) = H(0) + H(-1.5)   = 1/2 + 0   = 1/2      rank+(1) = 1 + H(-1) = 1        rank(1) = 3/2
    # N_FP(2) = H(1) + H(-0.5)   = 1 + 1/4   = 5/4      rank+(2) = 1 + H(1)  = 2        rank(2) = 13/4
    # cls = (1/2 / 3/2 + 5/4 / 13/4) / 2 = (1/3 + 5/13) / 2 = 14/39
    # E = (0.2, 0.6): loc = (0.2 / 1.5 + 0.8 / 3.25) / 2
    # g(1) = (1/2 + 0.6 H(-1)) / 1.5 = 1/3          g(2) = (5/4 + 0.2 H(1)) / 3.25 = 1.45/3.25 = 29/65
    # positives -g/2; n1: (g(1) * 1 + g(2) * 1/1.25) / 2, n2: g(2) * 0.25/1.25 / 2
    # prec = (2/3, 8/13), from the lowest score up the maximum is (2/3, 8/13): nothing is lifted
    logits = torch.tensor([1.0, 1.0, 3.0, 0.0, -0.5])
    targets = torch.tensor([1, 0, -1, 1, 0])
    cls, loc, grad_logits, grad_loc, ap, ap_grad = run(logits, targets, torch.tensor([0.2, 0.6]))
    g1, g2 = 1 / 3, 29 / 65
    assert cls.item() == pytest.approx(14 / 39)
    assert loc.item() == pytest.approx((0.2 / 1.5 + 0.8 / 3.25) / 2)
    expected = [-g1 / 2, (g1 + g2 * 0.8) / 2, 0, -g2 / 2, g2 * 0.2 / 2]
    assert grad_logits.tolist() == pytest.approx(expected)
    assert grad_loc.tolist() == pytest.approx([(1 / 1.5 + 1 / 3.25) / 2, 1 / 3.25 / 2])
    assert ap.item() == pytest.approx(14 / 39)
    # AP: n1: (H/rank) = (1/2 / 1.5 + 1 / 3.25) / 2, n2: 1/4 / 3.25 / 2
    assert ap_grad.tolist() == pytest.approx([-1 / 6, (1 / 3 + 1 / 3.25) / 2, 0, -5 / 26, 0.25 / 3.25 / 2], abs=1e-7)


@pytest.mark.parametrize("false_positives, pushed", [(0.5e-5, False), (2e-5, True)])
def test_positive_with_hardly_a_false_positive_drives_no_alrp_gradient(false_positives, pushed):
    # H(n - 0) = false_positives; the positive at 5 outranks the one at 0 and leaves it an error to hand on.
    logits = torch.tensor([5.0, 0.0, -1 + 2 * false_positives], dtype=torch.float64)
    cls, _, grad_logits, _, _, ap_grad = run(logits, torch.tensor([1, 1, 0]), torch.ones(2, dtype=torch.float64))
    assert cls > 0 and ap_grad[2] > 0
    assert bool(grad_logits[1] < 0) == bool(grad_logits[2] > 0) == pushed


def test_tied_positives_each_count_all_of_their_ties():
    # Two positives at the same score, no negatives: rank = 1 + H(0) = 3/2, loc = (0.3 + 0.5) / 1.5 for each.
    _, loc = alrp_loss(torch.tensor([1.0, 1.0]), torch.tensor([1, 1]), torch.tensor([0.3, 0.5]))
    assert loc.item() == pytest.approx(0.8 / 1.5)


# --- against the double sum ---------------------------------------------------------------------------------


@pytest.mark.parametrize("centre", [0.0, -4.6, 1e4])
@pytest.mark.parametrize("num_positives", [1, 30, 100])
def test_large_batches_equal_the_double_sum(num_positives, centre):
    # Enough logits for several chunks, threads and table cells that an edge divides.
    logits, targets, loc_errors = random_batch(100_000, num_positives)
    logits += centre
    results = run(logits, targets, loc_errors, 0.5)
    assert_agrees(results, dense(logits, targets, loc_errors, 0.5))


# --- laws ---------------------------------------------------------------------------------------------------


def test_order_of_the_entries_does_not_matter():
    logits, targets, loc_errors = random_batch(5000, 40)
    errors = torch.zeros_like(logits)
    errors[targets == 1] = loc_errors
    order = torch.randperm(len(logits), generator=torch.Generator().manual_seed(1))
    results = run(logits, targets, loc_errors)
    shuffled = run(logits[order], targets[order], errors[order][targets[order] == 1])
    assert_close(shuffled[0], results[0].double(), 1e-6)
    assert_close(shuffled[1], results[1].double(), 1e-6)
    assert_close(shuffled[2], results[2][order].double(), 1e-6)
    assert_close(shuffled[5], results[5][order].double(), 1e-6)


def test_localisation_is_differentiated_by_finite_differences():
    logits, targets, loc_errors = random_batch(300, 12, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda errors: alrp_loss(logits, targets, errors)[1], loc_errors.requires_grad_())


def test_each_part_reaches_only_its_own_input():
    logits, targets, loc_errors = random_batch(300, 12)
    logits.requires_grad_(), loc_errors.requires_grad_()
    cls, loc = alrp_loss(logits, targets, loc_errors)
    cls.backward()
    assert loc_errors.grad is None and logits.grad.abs().sum() > 0
    logits.grad = None
    loc.backward()
    assert logits.grad is None and loc_errors.grad.abs().sum() > 0


def test_gradient_follows_the_upstream_gradient_every_time():
    logits, targets, loc_errors = random_batch(70_000, 12)
    logits.requires_grad_()
    cls, _ = alrp_loss(logits, targets, loc_errors)
    gradients = [torch.autograd.grad(scale * cls, logits, retain_graph=True)[0] for scale in (1.0, -3.0, 1.0)]
    assert_close(gradients[1], -3 * gradients[0].double(), 1e-6)
    assert torch.equal(gradients[0], gradients[2])


def test_strided_logits_give_the_same_result():
    logits, targets, loc_errors = random_batch(2000, 12)
    wide = torch.stack([logits, torch.zeros_like(logits)], 1).requires_grad_()
    alrp_loss(wide[:, 0], targets, loc_errors)[0].backward()
    assert torch.equal(wide.grad[:, 0], run(logits, targets, loc_errors)[2])
    assert not wide.grad[:, 1].any()


def test_works_without_gradients_and_in_inference_mode():
    logits, targets, loc_errors = random_batch(100_000, 12)
    expected = alrp_loss(logits.requires_grad_(), targets, loc_errors)[0].item()
    with torch.no_grad():
        assert alrp_loss(logits, targets, loc_errors)[0].item() == expected
    with torch.inference_mode():
        assert alrp_loss(logits * 1, targets, loc_errors)[0].item() == expected


# --- nothing to rank, and bad input -------------------------------------------------------------------------


@pytest.mark.parametrize("targets", [[0, 0, 0], [-1, -1, -1], [0, -1, 0], []], ids=str)
def test_without_positives_the_loss_is_an_attached_zero(targets):
    logits = torch.linspace(-1, 1, len(targets)).requires_grad_()
    loc_errors = torch.zeros(0, requires_grad=True)
    cls, loc = alrp_loss(logits, torch.tensor(targets), loc_errors)
    ap = ap_loss(logits, torch.tensor(targets))
    assert cls.item() == loc.item() == ap.item() == 0
    (cls + loc + ap).backward()
    assert logits.grad.shape == logits.shape and not logits.grad.any()
    assert loc_errors.grad.shape == (0,)


def test_without_negatives_nothing_ranks_above():
    cls, loc, grad_logits, _, ap, ap_grad = run(torch.randn(5), torch.ones(5), torch.ones(5))
    assert cls == ap == 0 and loc > 0
    assert not grad_logits.any() and not ap_grad.any()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("place", [0, 1, 2, 3], ids=["positive", "negative", "ignored", "no positive at all"])
@pytest.mark.parametrize("size", [4, 70_000])
def test_a_logit_that_is_not_finite_shows_in_the_loss(bad, place, size):
    logits, targets = torch.linspace(-2, 2, size), torch.zeros(size)
    if place < 3:
        targets[:3] = torch.tensor([1, 0, -1])
    logits[place] = bad
    logits.requires_grad_()
    cls, loc = alrp_loss(logits, targets, torch.ones(int((targets == 1).sum())))
    ap = ap_loss(logits, targets)
    assert not (cls.isfinite() or loc.isfinite() or ap.isfinite())
    (cls + ap).backward()  # and does not raise
    assert logits.grad.shape == logits.shape


def test_a_localisation_error_that_is_not_finite_shows_in_the_loss():
    _, loc = alrp_loss(torch.randn(4), torch.tensor([1, 0, 0, 1]), torch.tensor([float("nan"), 1.0]))
    assert loc.isnan()


@pytest.mark.parametrize("delta", [0, -1.0, float("nan"), float("inf"), 1e305, True])
def test_delta_must_be_a_positive_number(delta):
    logits, targets, loc_errors = random_batch(30, 3)
    with pytest.raises(ValueError, match="delta"):
        alrp_loss(logits, targets, loc_errors, delta)
    with pytest.raises(ValueError, match="delta"):
        ap_loss(logits, targets, delta)


def test_shapes_must_fit():
    logits, targets, loc_errors = random_batch(30, 3)
    with pytest.raises(ValueError, match="one for each positive"):
        alrp_loss(logits, targets, loc_errors[:2])
    with pytest.raises(ValueError, match="shape"):
        ap_loss(logits, targets[:20])
    with pytest.raises(ValueError, match="shape"):
        ap_loss(logits[:, None], targets[:, None])
