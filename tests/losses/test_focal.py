import pytest
import torch

from losses import focal_loss


@pytest.mark.parametrize("alpha, gamma", [(0.25, 2.0), (0.5, 0.0), (0.9, 1.5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_equals_torchvision_over_the_number_of_positives(alpha, gamma, dtype):
    sigmoid_focal_loss = pytest.importorskip("torchvision.ops").sigmoid_focal_loss
    generator = torch.Generator().manual_seed(0)
    logits = (torch.randn(4000, generator=generator) * 5).to(dtype).requires_grad_()
    targets = (torch.rand(4000, generator=generator) < 0.01).to(dtype)
    targets[::5] = -1
    kept = targets >= 0
    loss = focal_loss(logits, targets, alpha, gamma)
    expected = sigmoid_focal_loss(logits[kept], targets[kept], alpha, gamma, "sum") / (targets == 1).sum()
    (gradient,) = torch.autograd.grad(loss, logits)
    (expected_gradient,) = torch.autograd.grad(expected, logits)
    assert loss.dtype == dtype and gradient.dtype == dtype
    assert torch.allclose(loss, expected, rtol=1e-5)
    assert torch.allclose(gradient, expected_gradient, rtol=1e-4, atol=1e-7)
    assert not gradient[~kept].any()


def test_case_worked_by_hand():
    # sigmoid(0) = 1/2: a positive costs 0.25 * (1/2)^2 * ln 2, a negative 0.75 * (1/2)^2 * ln 2.
    loss = focal_loss(torch.zeros(4), torch.tensor([1, 0, 0, -1]))
    assert loss.item() == pytest.approx((0.25 + 2 * 0.75) / 4 * 0.6931472)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.bool], ids=str)
def test_target_type_does_not_matter(dtype):
    logits, targets = torch.linspace(-3, 3, 7), torch.tensor([0, 1, 0, 0, 1, 1, 0])
    assert focal_loss(logits, targets.to(dtype)) == focal_loss(logits, targets.float())


def test_without_positives_it_is_the_sum_over_the_negatives():
    logits = torch.zeros(3, requires_grad=True)
    loss = focal_loss(logits, torch.zeros(3))
    loss.backward()
    assert loss.item() == pytest.approx(3 * 0.75 / 4 * 0.6931472) and logits.grad.all()


@pytest.mark.parametrize("targets", [[], [-1, -1]])
def test_with_nothing_to_learn_from_it_is_an_attached_zero(targets):
    logits = torch.zeros(len(targets), requires_grad=True)
    loss = focal_loss(logits, torch.tensor(targets))
    loss.backward()
    assert loss.item() == 0 and not logits.grad.any()


def test_extreme_and_low_precision_logits():
    logits = torch.tensor([-1e4, 1e4, -1e4, 1e4], dtype=torch.bfloat16, requires_grad=True)
    loss = focal_loss(logits, torch.tensor([1, 1, 0, 0]))
    loss.backward()
    assert loss.dtype == torch.float32 and loss.isfinite()
    assert logits.grad.dtype == torch.bfloat16 and logits.grad.isfinite().all()


def test_a_logit_that_is_not_finite_shows_in_the_loss():
    assert not focal_loss(torch.tensor([0.0, float("nan")]), torch.tensor([1, 0])).isfinite()
