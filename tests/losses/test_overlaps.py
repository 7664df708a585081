"""Overlaps of paired boxes against torchvision's, by hand, and where boxes degenerate."""

import pytest
import torch

from losses.overlaps import paired_diou, paired_giou, paired_iou

PAIRED = [paired_iou, paired_giou, paired_diou]


def random_boxes(n: int, seed: int, scale: float = 100.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(n, 2, generator=generator) * scale
    return torch.cat([corner, corner + 1 + torch.rand(n, 2, generator=generator) * scale], dim=1)


def test_iou_of_hand_worked_boxes():
    # intersection 1×2 = 2, union 2·2 + 2·2 - 2 = 6, hull 3×2 = 6; centres 1 apart, diagonal² 9 + 4
    a, b = torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 0, 3, 2]])
    assert paired_iou(a, b).item() == pytest.approx(2 / 6)
    assert paired_giou(a, b).item() == pytest.approx(2 / 6)
    assert paired_diou(a, b).item() == pytest.approx(2 / 6 - 1 / 13)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(paired_iou, "box_iou"), (paired_giou, "generalized_box_iou"), (paired_diou, "distance_box_iou")],
)
def test_paired_formulas_agree_with_torchvision(ours, theirs):
    theirs = getattr(pytest.importorskip("torchvision.ops"), theirs)
    # the second half lies far away, where only the generalised ones still tell boxes apart
    boxes1 = random_boxes(200, 2)
    boxes2 = torch.cat([random_boxes(100, 3), random_boxes(100, 4) + 500])
    torch.testing.assert_close(ours(boxes1, boxes2), theirs(boxes1, boxes2).diag(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("paired", PAIRED)
def test_degenerate_boxes_have_finite_values_and_gradients(paired):
    point, box = [5.0, 5.0, 5.0, 5.0], [4.0, 4.0, 8.0, 8.0]
    boxes1 = torch.tensor([point, point, box, [5.0, 4.0, 5.0, 8.0]], requires_grad=True)
    boxes2 = torch.tensor([point, box, box, box])
    value = paired(boxes1, boxes2)
    value.sum().backward()
    assert value.isfinite().all() and boxes1.grad.isfinite().all()


@pytest.mark.parametrize("paired", PAIRED)
def test_gradients_are_those_of_the_values(paired):
    boxes1, boxes2 = random_boxes(8, 5, 10.0).double(), random_boxes(8, 6, 10.0).double()
    assert torch.autograd.gradcheck(paired, (boxes1.requires_grad_(), boxes2))


@pytest.mark.parametrize("paired", PAIRED)
def test_no_boxes_no_values(paired):
    assert paired(torch.zeros(0, 4), torch.zeros(0, 4)).shape == (0,)


@pytest.mark.parametrize("pred", [[10.0, 10, 0, 0], [10.0, 0, 0, 10], [0.5, 0.5, 0.4, 0.4]])
def test_a_box_that_is_inside_out_overlaps_nothing(pred):
    pred, gt = torch.tensor([pred]), torch.tensor([[0.0, 0, 1, 1]])
    assert paired_iou(pred, gt).item() == 0
    assert -1 <= paired_giou(pred, gt).item() <= 0
