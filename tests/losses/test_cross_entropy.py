"""losses/cross_entropy.py: cross entropy of classes with background, and the box loss beside it."""

import math

import pytest
import torch
import torch.nn.functional as F

from losses.cross_entropy import CELoss, CESettings, cross_entropy_loss
from losses.matched import Matched


def rows_of(num_rows: int, num_classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs (R, K + 1), background last, and labels (R,) 0..K, K background."""
    generator = torch.Generator().manual_seed(0)
    outputs = 3 * torch.randn(num_rows, num_classes + 1, generator=generator, dtype=torch.float64)
    return outputs.requires_grad_(), torch.randint(0, num_classes + 1, (num_rows,), generator=generator)


def as_entries(labels: torch.Tensor, num_classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    targets = F.one_hot(labels, num_classes + 1)[:, :-1].flatten()
    return targets, (targets == 1).nonzero().squeeze(1)


@pytest.mark.parametrize("num_classes", [1, 4])
def test_it_is_the_softmax_with_background(num_classes):
    outputs, labels = rows_of(30, num_classes)
    targets, entries = as_entries(labels, num_classes)
    expected = F.cross_entropy(outputs, labels)
    (of_expected,) = torch.autograd.grad(expected, outputs)
    logits = (outputs[:, :-1] - outputs[:, -1:]).flatten()
    loss = cross_entropy_loss(logits, targets, entries, num_classes)
    (of_loss,) = torch.autograd.grad(loss, outputs)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(of_loss, of_expected, rtol=0, atol=1e-14)


def test_of_one_class_it_is_the_binary_one():
    logits = torch.tensor([2.0, -1.0, 0.5, 9.0])
    targets, entries = torch.tensor([1, 0, 1, -1]), torch.tensor([0, 2])
    expected = F.binary_cross_entropy_with_logits(logits[:3], targets[:3].float())
    torch.testing.assert_close(cross_entropy_loss(logits, targets, entries, 1), expected)


def test_a_row_with_an_ignored_entry_is_left_out():
    logits = torch.tensor([1.0, 2.0, 3.0, 4.0, 0.0, 0.0], requires_grad=True)
    targets = torch.tensor([1, 0, 0, -1, 0, 0])
    loss = cross_entropy_loss(logits, targets, torch.tensor([0]), 2)
    assert loss.item() == pytest.approx((math.log(1 + math.e + math.e**2) - 1 + math.log(3)) / 2)
    loss.backward()
    assert logits.grad[2:4].tolist() == [0, 0] and logits.grad[[0, 1, 4, 5]].all()


def test_nothing_that_counts_is_zero_and_attached():
    logits = torch.ones(4, requires_grad=True)
    loss = cross_entropy_loss(logits, torch.full((4,), -1), torch.zeros(0, dtype=torch.int64), 2)
    loss.backward()
    assert loss == 0 and logits.grad.tolist() == [0] * 4
    assert cross_entropy_loss(torch.zeros(0), torch.zeros(0), torch.zeros(0, dtype=torch.int64), 2) == 0


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_logit_that_is_not_finite_shows(value):
    logits = torch.tensor([0.0, value, 1.0, 0.0])
    assert cross_entropy_loss(logits, torch.tensor([1, 0, 0, 0]), torch.tensor([0]), 2).isnan()


def matched(**changes) -> Matched:
    """Two rows of two classes, the first positive: its box is 2 pixels off, its offsets by 0.5 and 2."""
    gt = torch.tensor([[0.0, 0, 10, 10]])
    values = {
        "logits": torch.zeros(4),
        "targets": torch.tensor([0, 1, 0, 0]),
        "entries": torch.tensor([1]),
        "pred_boxes": gt + torch.tensor([2.0, 0, 2, 0]),
        "gt_boxes": gt,
        "pred_deltas": torch.tensor([[0.5, 0.0, 0.0, -2.0]]),
        "encode_targets": lambda: torch.zeros(1, 4),
        "num_classes": 2,
    }
    return Matched(**values | changes)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, 2.5),  # L1
        ({"smooth_l1_beta": 1.0}, 0.125 + 1.5),
        ({"box_loss": "giou"}, 1 - 8 / 12),
        ({"box_loss": "log_iou"}, math.log(12 / 8)),
    ],
)
def test_boxes_are_summed_over_positives_and_divided_by_all_rows(settings, expected):
    losses = CELoss(CESettings(box_weight=3.0, **settings)).of_matched(matched())
    assert losses["loss_loc"].item() == pytest.approx(expected / 2)
    assert losses["loss_cls"].item() == pytest.approx(math.log(3))
    assert losses["loss"].item() == pytest.approx(math.log(3) + 3 * expected / 2)


@pytest.mark.parametrize("keys", [{"box_weight": 0.0}, {"smooth_l1_beta": -1.0}, {"smooth_l1_beta": math.inf}])
def test_impossible_settings_are_refused(keys):
    with pytest.raises(ValueError, match=next(iter(keys))):
        CESettings(**keys)
