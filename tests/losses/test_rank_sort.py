"""Rank & Sort Loss against sums over all pairs, a case worked by hand, and its laws."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rank_sort_oracle import dense_rank_sort
from ranking_batches import DELTAS, ENTRIES, PROPERTY, TARGET_TYPES, as_tensors, assert_balanced, random_batch
from ranking_oracle import assert_close

from losses import rs_loss
from losses.ranking.smaller_keys import sum_over_smaller_keys


def run(logits, targets, ious, delta=0.5):
    logits = logits.detach().requires_grad_()
    ranking, sorting = rs_loss(logits, targets, ious, delta)
    (grad_ranking,) = torch.autograd.grad(ranking, logits)
    (grad_sorting,) = torch.autograd.grad(sorting, logits)
    return ranking, sorting, grad_ranking, grad_sorting


def assert_agrees(results, expected, loss=1e-6, gradient=2e-6):
    for actual, wanted, tolerance in zip(results, expected, (loss, loss, gradient, gradient), strict=True):
        assert_close(actual, wanted, tolerance)


def batch_of(entries, dtype=torch.float32):
    logits, targets, values = as_tensors(entries, dtype)
    return logits, targets, values / 2  # IoUs are 0 to 1


def test_case_worked_by_hand():
    # Positives p1 = 1 (IoU .5), p2 = 0 (IoU .9), p3 = 2 (IoU .5); negative n = 1; delta = 1: H(x) = x/2 + 1/2.
    # rank+(1) = H(0) + H(-1) + H(1) = 1/2 + 0 + 1 = 3/2; rank+(2) = 1 + 1/2 + 1 = 5/2; rank+(3) = 0 + 0 + 1/2
    # N_FP = H(0), H(1), H(-1) = 1/2, 1, 0; ranking errors 1/4, 2/7, 0
    # sorting now: (.5 * 1/2 + .5 * 1) / 1.5 = .5; (.5 + .1 * 1/2 + .5) / 2.5 = .42; .5
    # targets: 1 and 3 have all above them in place (ties count): errors 0; 2 has itself alone: .1, so .32
    # 2 blames 1 and 3 alike: each is pushed by .16
    logits, targets = torch.tensor([1.0, 0.0, 2.0, 1.0]), torch.tensor([1, 1, 1, 0])
    ranking, sorting, grad_ranking, grad_sorting = run(logits, targets, torch.tensor([0.5, 0.9, 0.5]), delta=1.0)
    assert ranking.item() == pytest.approx((1 / 4 + 2 / 7) / 3)
    assert sorting.item() == pytest.approx(0.32 / 3)
    assert grad_ranking.tolist() == pytest.approx([-1 / 12, -2 / 21, 0, 1 / 12 + 2 / 21])
    assert grad_sorting.tolist() == pytest.approx([0.16 / 3, -0.32 / 3, 0.16 / 3, 0])


@PROPERTY
@given(ENTRIES, DELTAS, st.sampled_from(TARGET_TYPES))
def test_equals_the_double_sum(entries, delta, target_type):
    logits, targets, ious = batch_of(entries)
    results = run(logits, targets.to(target_type), ious, delta)
    assert_agrees(results, dense_rank_sort(logits, targets, ious, delta))
    for gradient in results[2:]:
        assert_balanced(gradient)
        assert not gradient[targets == -1].any()
    assert not results[3][targets != 1].any()


@PROPERTY
@given(ENTRIES, DELTAS)
def test_equals_the_double_sum_in_float64(entries, delta):
    logits, targets, ious = batch_of(entries, torch.float64)
    results = run(logits, targets, ious.double(), delta)
    assert all(result.dtype == torch.float64 for result in results)
    assert_agrees(results, dense_rank_sort(logits, targets, ious, delta), 1e-10, 1e-9)


@PROPERTY
@given(
    st.lists(st.tuples(st.floats(-1e4, 1e4, width=32), st.sampled_from([1, 0]), st.floats(0, 2, width=32)), max_size=60)
)
def test_scattered_scores_stay_finite_balanced_and_exact(entries):
    logits, targets, ious = batch_of(entries)
    results = run(logits, targets, ious)
    assert all(result.isfinite().all() for result in results)
    assert_balanced(results[2]), assert_balanced(results[3])
    assert_agrees(results, dense_rank_sort(logits, targets, ious, 0.5))


@pytest.mark.parametrize("num_positives", [1, 100, 700])
def test_large_batches_equal_the_double_sum(num_positives):
    logits, targets, ious = random_batch(100_000, num_positives)
    assert_agrees(run(logits, targets, ious), dense_rank_sort(logits, targets, ious, 0.5))


@PROPERTY
@given(st.lists(st.tuples(st.integers(-6, 6), st.integers(0, 4)), max_size=70), DELTAS)
def test_sums_over_smaller_keys_equal_the_sums_over_pairs(entries, delta):
    scores = torch.tensor([entry[0] / 4 for entry in entries], dtype=torch.float64)
    keys = torch.tensor([float(entry[1]) for entry in entries])
    weights = torch.stack([torch.ones_like(scores), 1 + scores.abs()])
    pairs = ((scores[None, :] - scores[:, None]) / (2 * delta) + 0.5).clamp(0, 1) * (keys[None, :] < keys[:, None])
    assert_close(sum_over_smaller_keys(scores, keys, weights, delta), weights @ pairs.T, 1e-13)


def test_positives_sorted_by_iou_have_no_sorting_error():
    ious = torch.linspace(0.1, 0.9, 20)
    _, sorting, _, gradient = run(10 * ious, torch.ones(20), ious)
    assert sorting.item() == pytest.approx(0, abs=0.02)  # the step is smoothed
    _, sorting, _, gradient = run(100 * ious, torch.ones(20), ious)
    assert sorting.item() == 0 and not gradient.any()


@pytest.mark.parametrize("targets", [[0, 0, 0], [-1, -1], []], ids=str)
def test_without_positives_the_loss_is_an_attached_zero(targets):
    logits = torch.linspace(-1, 1, len(targets)).requires_grad_()
    ranking, sorting = rs_loss(logits, torch.tensor(targets), torch.zeros(0))
    assert ranking.item() == sorting.item() == 0
    (ranking + sorting).backward()
    assert logits.grad.shape == logits.shape and not logits.grad.any()


@pytest.mark.parametrize("place", [0, 1, 2], ids=["positive", "negative", "ignored"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_logit_that_is_not_finite_shows_in_the_loss(place, bad):
    logits = torch.zeros(4)
    logits[place] = bad
    ranking, sorting = rs_loss(logits.requires_grad_(), torch.tensor([1, 0, -1, 1]), torch.tensor([0.3, 0.6]))
    assert not ranking.isfinite() and not sorting.isfinite()
    (ranking + sorting).backward()


def test_bad_arguments_are_refused():
    logits, targets, ious = random_batch(30, 3)
    with pytest.raises(ValueError, match="delta"):
        rs_loss(logits, targets, ious, 0.0)
    with pytest.raises(ValueError, match="one for each positive"):
        rs_loss(logits, targets, ious[:2])
