"""Rank & Sort Loss against sums over all pairs, a case worked by hand, and its laws."""

import pytest
import torch
from rank_sort_oracle import dense_rank_sort
from ranking_batches import random_batch
from ranking_oracle import assert_close

from losses import rs_loss


def run(logits, targets, ious, delta=0.5):
    logits = logits.detach().requires_grad_()
    ranking, sorting = rs_loss(logits, targets, ious, delta)
    (grad_ranking,) = torch.autograd.grad(ranking, logits)
    (grad_sorting,) = torch.autograd.grad(sorting, logits)
    return ranking, sorting, grad_ranking, grad_sorting


def assert_agrees(results, expected, loss=1e-6, gradient=2e-6):
    for actual, wanted, tolerance in zip(results, expected, (loss, loss, gradient, gradient), strict=True):
        assert_close(actual, wanted, tolerance)


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


@pytest.mark.parametrize("num_positives", [1, 100, 700])
def test_large_batches_equal_the_double_sum(num_positives):
    logits, targets, ious = random_batch(100_000, num_positives)
    assert_agrees(run(logits, targets, ious), dense_rank_sort(logits, targets, ious, 0.5))


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
