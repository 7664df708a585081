"""The two parts of FreeAnchor on flat tensors: worked cases, an oracle, extreme and impossible input, settings."""

import math

import pytest
import torch

from losses.free_anchor import FreeAnchorLoss, FreeAnchorSettings, background_sum, bag_losses


def test_mean_max_worked_by_hand():
    # q = 1/2 and 1/4 weigh 2 and 4/3: (1 + 1/3) / (2 + 4/3) = 2/5.
    likelihoods = torch.tensor([[0.5, 0.25]], dtype=torch.float64)
    assert bag_losses(likelihoods.log()).item() == pytest.approx(-math.log(0.4), rel=1e-12)


def test_mean_max_is_the_mean_of_small_likelihoods_and_the_largest_of_others():
    small = torch.tensor([[1e-6, 3e-6, 2e-6]], dtype=torch.float64)
    assert bag_losses(small.log()).exp().item() == pytest.approx(1 / 2e-6, rel=1e-5)
    large = torch.tensor([[1e-3, 1 - 1e-9, 0.2]], dtype=torch.float64)
    assert bag_losses(large.log()).item() == pytest.approx(0, abs=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_certain_and_hopeless_bags_have_finite_losses_and_gradients(dtype):
    bags = torch.tensor([[0.0, -3.0], [-1e-30, -1e-9], [-1e4, -2e4], [-80.0, -3e38]], dtype=dtype, requires_grad=True)
    losses = bag_losses(bags)
    losses.sum().backward()
    assert bags.grad.isfinite().all() and (losses >= 0).all() and losses[:2].max() < 1e-6
    assert losses[2].item() == pytest.approx(1e4 + math.log(2)) and bags.grad[2, 0].item() == pytest.approx(-1)


def test_no_object_is_no_loss():
    losses = FreeAnchorLoss().of_bags(torch.zeros(0, 50, requires_grad=True), torch.tensor(3.0, dtype=torch.float64))
    losses["loss"].backward()
    assert losses["loss_positive"] == 0 and losses["loss_negative"] == 1.5


def oracle(logits, contained, gamma):
    z = logits.sigmoid() * (1 - contained)
    return (z**gamma * -(1 - z).log()).sum()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_background_and_its_gradient(gamma):
    generator = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(300, generator=generator, dtype=torch.float64)).requires_grad_()
    contained = torch.rand(300, generator=generator, dtype=torch.float64).clamp(0.2, 0.8) * 5 / 3 - 1 / 3
    assert (contained == 0).sum() > 20 and (contained == 1).sum() > 20
    total, expected = background_sum(logits, contained, gamma), oracle(logits, contained, gamma)
    assert total.item() == pytest.approx(expected.item(), rel=1e-12)
    (gradient,) = torch.autograd.grad(2 * total, logits)
    (wanted,) = torch.autograd.grad(2 * expected, logits)
    wanted = wanted.nan_to_num(0)  # the oracle's power has no slope where z is 0
    torch.testing.assert_close(gradient, wanted, rtol=1e-10, atol=1e-14)
    assert not gradient[contained == 1].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_extreme_logits_of_background_are_finite(dtype):
    logits = torch.tensor([-3e38, -200, 200, 3e38, 200, 3e38], dtype=dtype, requires_grad=True)
    total = background_sum(logits, torch.tensor([0, 0, 0, 0, 0.5, 1], dtype=dtype), 2.0)
    total.backward()
    assert total.isfinite()
    torch.testing.assert_close(logits.grad, torch.tensor([0, 0, 1, 1, 0, 0], dtype=dtype), rtol=0, atol=1e-30)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_logit_that_is_not_finite_shows(value):
    assert not background_sum(torch.tensor([0.0, value]), torch.zeros(2), 2.0).isfinite()


@pytest.mark.parametrize(
    "keys", [{"alpha": 1.1}, {"beta": 0.0}, {"gamma": -1.0}, {"bag_size": 0}, {"min_iou": 1.0}, {"smooth_l1_beta": 0.0}]
)
def test_settings_out_of_range_are_refused_by_name(keys):
    (name,) = keys
    with pytest.raises(ValueError, match=f"^{name} must be"):
        FreeAnchorSettings(**keys)


def test_a_second_derivative_of_the_background_is_refused():
    logits = torch.tensor([0.3, -1.0], dtype=torch.float64, requires_grad=True)
    value = background_sum(2 * logits, torch.zeros_like(logits), 2.0) * logits.sum()
    (gradient,) = torch.autograd.grad(value, logits, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
