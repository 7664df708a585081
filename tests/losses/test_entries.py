"""Finding the few positives among many targets, of any type."""

import pytest
import torch

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


def test_bool_targets():
    assert positive_entries(torch.tensor([False, True, True])).tolist() == [1, 2]
