"""The bin search: table and plain search must place every logit alike, whatever the rounding."""

import pytest
import torch
from operation_counter import OperationCounter

from losses.ranking.logit_bins import LogitBins


def test_logits_from_bfloat16_are_never_searched_for():
    generator = torch.Generator().manual_seed(0)
    logits, positives = ((5 * torch.rand(n, generator=generator) - 7).bfloat16().float() for n in (5000, 300))
    bins = LogitBins(positives.double(), 1.0, torch.float32)
    with OperationCounter() as operations:
        slots = bins.locate(logits, torch.zeros(5000))
    assert not operations.counts["searchsorted"]
    assert torch.equal(slots // bins.lanes, torch.searchsorted(bins.edges, logits, right=True, out_int32=True))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_number_of_threads_changes_nothing(threads):
    generator = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(150_001, generator=generator), torch.zeros(150_001)
    targets[::7] = -1
    bins = LogitBins(torch.randn(50, generator=generator).double(), 1.0, torch.float32)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        slots = bins.locate(logits, targets)
        count, total = bins.histogram(logits, slots)
    finally:
        torch.set_num_threads(before)
    where = torch.searchsorted(bins.edges, logits, right=True) * (targets == 0)
    assert torch.equal(slots // bins.lanes, where.int())
    assert torch.equal(count, torch.bincount(where, minlength=101).double())
    assert torch.allclose(total, torch.bincount(where, logits.double(), 101), rtol=1e-12)
