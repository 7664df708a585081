"""Finding the few positives among many targets, of any type."""

import pytest
import torch

from losses import ALRPLoss, alrp_loss, ap_loss, dr_loss, focal_loss, rs_loss, smooth_l1_loss
from losses.entries import positive_entries

TYPES = [torch.int8, torch.int64, torch.float32, torch.float64, torch.bfloat16]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("num", [0, 1, 7, 8, 1003])
def test_finds_exactly_the_ones(num, dtype):
    targets = torch.randint(-1, 2, (num,), generator=torch.Generator().manual_seed(num)).to(dtype)
    expected = [index for index, target in enumerate(targets.tolist()) if target == 1]
    assert positive_entries(targets).tolist() == expected


def test_other_numbers_are_not_positive():
    targets = torch.tensor([1.0, 0.5, float("nan"), 2.0, -1.0, 0.0, 1.0, -0.0, float("inf")])
    assert positive_entries(targets).tolist() == [0, 6]


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_logits_that_are_targets_are_refused(dtype):
    logits, targets = torch.randn(6), torch.tensor([1, 0, 0, 1, 0, -1]).to(dtype)
    calls = [
        lambda: alrp_loss(targets, logits, torch.rand(2)),
        lambda: ap_loss(targets, logits),
        lambda: rs_loss(targets, logits, torch.rand(2)),
        lambda: focal_loss(targets, logits),
        lambda: dr_loss(targets, logits),
        lambda: ALRPLoss()(targets[:, None], logits[:, None], torch.rand(2, 4), torch.rand(2, 4)),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=f"logits must be floats, got {dtype}; are logits and targets exchanged"):
            call()


@pytest.mark.parametrize("group", ["world", 0])
def test_a_group_that_is_none_is_refused(group):
    logits, targets = torch.randn(6), torch.tensor([1, 0, 0, 1, 0, -1])
    calls = [
        lambda: alrp_loss(logits, targets, torch.rand(2), group=group),
        lambda: ap_loss(logits, targets, group=group),
        lambda: rs_loss(logits, targets, torch.rand(2), group=group),
        lambda: focal_loss(logits, targets, group=group),
        lambda: dr_loss(logits, targets, group=group),
        lambda: smooth_l1_loss(torch.rand(2, 4), torch.rand(2, 4), group=group),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=f"group must be a process group or None, got {group!r}"):
            call()


def test_bool_targets():
    assert positive_entries(torch.tensor([False, True, True])).tolist() == [1, 2]


@pytest.mark.parametrize("num", [7, 8, 16])
@pytest.mark.parametrize("view", ["column", "slice", "expanded"])
def test_bool_targets_that_are_a_view_of_others(num, view):
    matrix = torch.rand(num + 1, 3, generator=torch.Generator().manual_seed(num)) < 0.4
    targets = {"column": matrix[:num, 1], "slice": matrix[:, 0].clone()[1:], "expanded": matrix[:1, 0].expand(num)}[
        view
    ]
    expected = [index for index, target in enumerate(targets.tolist()) if target]
    assert positive_entries(targets).tolist() == expected


@pytest.mark.parametrize("loss", [alrp_loss, ap_loss, dr_loss, focal_loss])
@pytest.mark.parametrize("shapes", [((6, 1), (6,)), ((6,), (1,)), ((6,), (6, 1)), ((2, 3), (2, 3)), ((), ())])
def test_only_flat_vectors_of_one_length_are_taken(loss, shapes):
    more = [torch.ones(1)] if loss is alrp_loss else []
    with pytest.raises(ValueError, match=r"logits and targets must both have shape \(M,\)"):
        loss(torch.zeros(shapes[0]), torch.zeros(shapes[1]), *more)
