"""The bin search on scores drawn by hypothesis: table and plain search place every one alike, whatever the rounding."""

import pytest
import torch
from drawn_batches import PROPERTY
from hypothesis import given
from hypothesis import strategies as st

from losses.ranking.score_bins import ScoreBins

FLOATS = st.one_of(st.floats(-50, 50, width=32), st.floats(-1e4, 1e4, width=32), st.integers(-3, 3).map(float))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@PROPERTY
@given(st.lists(FLOATS, min_size=1, max_size=12), st.lists(FLOATS, max_size=40), st.floats(0.1, 4))
def test_bin_is_the_number_of_breakpoints_at_or_below(dtype, positives, others, delta):
    positives = torch.tensor(positives, dtype=torch.float64)
    bins = ScoreBins(positives, delta, dtype)
    nearby = bins.edges.repeat(3)
    nearby[: len(bins.edges)] = torch.nextafter(bins.edges, torch.tensor(-1e9, dtype=dtype))
    nearby[-len(bins.edges) :] = torch.nextafter(bins.edges, torch.tensor(1e9, dtype=dtype))
    scores = torch.cat([torch.tensor(others, dtype=dtype), nearby])
    breakpoints = torch.cat([positives - delta, positives + delta])
    expected = (breakpoints[None, :] <= scores[:, None].double()).sum(1)
    targets = torch.zeros(len(scores))
    assert torch.equal(bins.locate(scores, targets) // bins.lanes, expected.int())
    bins.slot_of_cell = None  # as on a GPU
    assert torch.equal(bins.locate(scores, targets) // bins.lanes, expected.int())
