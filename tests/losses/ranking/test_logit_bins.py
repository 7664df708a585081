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


@pytest.fixture
def set_threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_number_of_threads_changes_nothing(threads, set_threads):
    generator = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(150_001, generator=generator), torch.zeros(150_001)
    targets[::7] = -1
    bins = LogitBins(torch.randn(50, generator=generator).double(), 1.0, torch.float32)
    set_threads(threads)
    slots = bins.locate(logits, targets)
    count, total = bins.histogram(logits, slots)
    where = torch.searchsorted(bins.edges, logits, right=True) * (targets == 0)
    assert torch.equal(slots // bins.lanes, where.int())
    assert torch.equal(count, torch.bincount(where, minlength=101).double())
    assert torch.allclose(total, torch.bincount(where, logits.double(), 101), rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("num_logits", [1, 5, 70_001, 300_002])
def test_every_logit_is_counted_and_read_whatever_share_a_thread_gets(num_logits, dtype, set_threads):
    generator = torch.Generator().manual_seed(1)
    logits, targets = torch.randn(num_logits, generator=generator, dtype=dtype), torch.zeros(num_logits)
    positives = torch.randn(20, generator=generator).double()
    weights = torch.rand(20, generator=generator).double()
    results = []
    for threads in (1, 4):
        set_threads(threads)
        bins = LogitBins(positives, 1.0, dtype)
        slots = bins.locate(logits, targets)
        results.append([bins.histogram(logits, slots), bins.weighted_steps(weights, logits, slots)])
    assert results[1][0][0].sum() == num_logits
    (histogram, steps), (shared_histogram, shared_steps) = results
    assert torch.allclose(shared_histogram, histogram, rtol=1e-12)
    assert torch.equal(shared_steps, steps)
    step = ((logits.double()[:, None] - positives + 1) / 2).clamp(0, 1) @ weights
    assert torch.allclose(shared_steps.double(), step, rtol=1e-5)
