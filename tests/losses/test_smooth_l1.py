import pytest
import torch
import torch.nn.functional as F

from losses import smooth_l1_loss


@pytest.mark.parametrize("beta", [1.0, 0.1, 0.0])
def test_equals_the_mean_over_coordinates(beta):
    generator = torch.Generator().manual_seed(0)
    pred = torch.randn(50, 4, generator=generator).requires_grad_()
    target = torch.randn(50, 4, generator=generator)
    loss, expected = smooth_l1_loss(pred, target, beta), F.smooth_l1_loss(pred, target, beta=beta)
    assert torch.allclose(loss, expected)
    gradients = [torch.autograd.grad(value, pred)[0] for value in (loss, expected)]
    assert torch.allclose(*gradients)


def test_case_worked_by_hand():
    # Differences 0.5, 1, 2, 0: 0.5 * 0.25 + 0.5 + 1.5 + 0 = 2.125, over 4 coordinates of one box.
    loss = smooth_l1_loss(torch.tensor([[0.5, 1.0, 2.0, 0.0]]), torch.zeros(1, 4))
    assert loss.item() == pytest.approx(2.125 / 4)


def test_without_boxes_it_is_an_attached_zero():
    pred = torch.zeros(0, 4, requires_grad=True)
    loss = smooth_l1_loss(pred, torch.zeros(0, 4))
    loss.backward()
    assert loss.item() == 0 and pred.grad.shape == (0, 4)


def test_low_precision_boxes_are_summed_in_float32():
    loss = smooth_l1_loss(torch.ones(3, 4, dtype=torch.bfloat16), torch.zeros(3, 4))
    assert loss.dtype == torch.float32 and loss.item() == 0.5


@pytest.mark.parametrize("shape", [(4,), (2, 1), (1, 4)])
def test_targets_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match="must have one shape"):
        smooth_l1_loss(torch.zeros(2, 4), torch.zeros(shape))
