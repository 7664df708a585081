"""The bin search on logits drawn by hypothesis: table and plain search place every one alike, whatever the rounding."""

import pytest
import torch
from drawn_batches import PROPERTY
from hypothesis import given
from hypothesis import strategies as st

from losses.ranking.logit_bins import LogitBins

FLOATS = st.one_of(st.floats(-50, 50, width=32), st.floats(-1e4, 1e4, width=32), st.integers(-3, 3).map(float))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@PROPERTY
@given(st.lists(FLOATS, min_size=1, max_size=12), st.lists(FLOATS, max_size=40), st.floats(0.1, 4))
def test_bin_is_the_number_of_breakpoints_at_or_below(dtype, positives, others, delta):
    positives = torch.tensor(positives, dtype=torch.float64)
    bins = LogitBins(positives, delta, dtype)
    nearby = bins.edges.repeat(3)
    nearby[: len(bins.edges)] = torch.nextafter(bins.edges, torch.tensor(-1e9, dtype=dtype))
    nearby[-len(bins.edges) :] = torch.nextafter(bins.edges, torch.tensor(1e9, dtype=dtype))
    logits = torch.cat([torch.tensor(others, dtype=dtype), nearby])
    breakpoints = torch.cat([positives - delta, positives + delta])
    expected = (breakpoints[None, :] <= logits[:, None].double()).sum(1)
    targets = torch.zeros(len(logits))
    assert torch.equal(bins.locate(logits, targets) // bins.lanes, expected.int())
    bins.slot_of_cell = None  # as on a GPU
    assert torch.equal(bins.locate(logits, targets) // bins.lanes, expected.int())
