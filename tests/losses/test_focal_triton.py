"""Focal loss by the Triton kernels: on the CPU in Triton's interpreter, on a GPU as they are."""

import pytest
import torch
import torch.nn.functional as F
from ranking_batches import random_batch
from ranking_oracle import assert_close

from losses import focal_loss


@pytest.mark.parametrize("alpha, gamma", [(0.25, 2.0), (0.5, 0.0), (0.9, 1.5), (0.0, 1.0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_focal_loss_equals_its_definition(device, alpha, gamma, dtype):
    logits, targets, _ = random_batch(700, 50, scale=6.0, dtype=dtype)
    logits[:4] = torch.tensor([-1e4, 1e4, -30.0, 30.0])
    # -alpha_t (1 - p_t)^gamma log p_t in float64, differentiated by autograd
    exact = logits.double().requires_grad_()
    margin = torch.where(targets == 1, exact, -exact)
    weight = torch.where(targets == 1, alpha, 1 - alpha) * (targets != -1)
    expected = (-weight * F.sigmoid(-margin) ** gamma * F.logsigmoid(margin)).sum() / 50
    (wanted,) = torch.autograd.grad(expected, exact)

    inputs = logits.to(device).requires_grad_()
    loss = focal_loss(inputs, targets.to(device), alpha, gamma)
    gradients = [torch.autograd.grad(scale * loss, inputs, retain_graph=True)[0].cpu() for scale in (1.0, -2.0)]
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert_close(loss.cpu(), expected.detach(), 2e-6)
    for gradient, scale in zip(gradients, (1.0, -2.0), strict=True):
        assert gradient.dtype == dtype
        torch.testing.assert_close(gradient.double(), scale * wanted, rtol=max(2e-5, torch.finfo(dtype).eps), atol=1e-9)


@pytest.mark.parametrize("targets", [[], [-1, -1], [0, 0]], ids=str)
def test_focal_loss_without_positives(device, targets):
    logits = torch.zeros(len(targets), device=device, requires_grad=True)
    loss = focal_loss(logits, torch.tensor(targets, device=device))
    loss.backward()
    negatives = targets.count(0)
    assert loss.item() == pytest.approx(negatives * 0.75 / 4 * 0.6931472)  # 0.75 * (1/2)^2 * ln 2 for each
    assert bool(logits.grad.any()) == bool(negatives)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("place", [0, 1, 2], ids=["positive", "negative", "ignored"])
def test_a_logit_that_is_not_finite_shows_in_focal_loss(device, bad, place):
    logits = torch.zeros(3)
    logits[place] = bad
    assert not focal_loss(logits.to(device), torch.tensor([1, 0, -1], device=device)).isfinite()
