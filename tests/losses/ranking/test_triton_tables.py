"""What the kernels look up: where edges lie in the cells, and number and sum of a bin in one integer."""

import os

import pytest
import torch

pytest.importorskip("triton")

from losses.ranking.triton_bins import TritonBins
from losses.ranking.triton_histogram import Packing, Zeros, histogram_of_negatives

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
pytestmark = pytest.mark.skipif(
    DEVICE.type == "cpu" and os.environ.get("TRITON_INTERPRET") != "1", reason="Triton compiles its kernels"
)


def make_bins(positives: torch.Tensor, delta: float = 1.0) -> TritonBins:
    own = positives.double().to(DEVICE)
    among = torch.zeros(2, 2, 2 * len(own) + 1, dtype=torch.float64, device=DEVICE)
    return TritonBins(own, torch.zeros_like(own), delta, torch.float32, among)


def cells_of(bins: TritonBins, logits: torch.Tensor) -> torch.Tensor:
    distance = (logits - bins.edges[0].cpu()).float() * bins.cells_per_unit.cpu()
    return distance.clamp(0, len(bins.ranges) - 1).int()


def test_a_logit_lies_between_the_edges_that_its_cell_names():
    generator = torch.Generator().manual_seed(0)
    bins = make_bins(torch.randn(40, generator=generator) * 2 - 3)
    edges = bins.edges.cpu()
    around = torch.cat([torch.nextafter(edges, edges + sign) for sign in (-1, 1)])
    logits = torch.cat([edges, around, torch.randn(2000, generator=generator) * 4])
    logits = logits[logits >= edges[0]]
    ranges = bins.ranges.cpu()[cells_of(bins, logits)]
    number = torch.bucketize(logits, edges, right=True)
    assert ((ranges & 0xFFFFFFFF) <= number).all() and (number <= ranges >> 32).all()


def test_edges_of_logits_in_bfloat16_begin_cells_and_leave_nothing_to_search():
    generator = torch.Generator().manual_seed(0)
    positives = (torch.randn(300, generator=generator) / 4 - 4.6).bfloat16()
    bins = make_bins(positives)
    edges = bins.edges.cpu()
    assert len(edges.unique()) < len(edges) / 2  # many of each
    logits = torch.cat([positives, (torch.randn(3000, generator=generator) / 4 - 4.6).bfloat16()]).float()
    logits = logits[logits >= edges[0]]
    ranges = bins.ranges.cpu()[cells_of(bins, logits)]
    assert torch.equal(ranges & 0xFFFFFFFF, ranges >> 32)
    assert torch.equal(ranges >> 32, torch.bucketize(logits, edges, right=True))


@pytest.mark.parametrize("delta", [1e-3, 1.0, 50.0])
@pytest.mark.parametrize("num_blocks", [1, 7])
def test_packed_numbers_and_sums_are_those_of_float64(delta, num_blocks):
    block = 256
    generator = torch.Generator().manual_seed(1)
    logits = 3 * delta * torch.randn(num_blocks * block, generator=generator)
    bins = make_bins(delta * torch.randn(20, generator=generator), delta)
    num_bins = len(bins.origins)
    zeros = Zeros.of(num_bins, num_blocks, block, torch.float32, delta, DEVICE)
    contents = torch.empty(num_blocks, dtype=torch.int8, device=DEVICE)
    targets = torch.zeros(len(logits), dtype=torch.int8, device=DEVICE)
    number, total = histogram_of_negatives(logits.to(DEVICE), targets, bins, zeros, contents, block, 4).cpu()
    edges = bins.edges.cpu()
    index = torch.bucketize(logits, edges, right=True)
    expected = torch.zeros(num_bins, dtype=torch.float64).index_add_(0, index, torch.ones(len(logits)).double())
    assert torch.equal(number[1:], expected[1:])
    sums = torch.zeros(num_bins, dtype=torch.float64).index_add_(0, index, logits.double())
    # between the first edge and the last; what is beyond counts in no sum
    torch.testing.assert_close(total[1:-1], sums[1:-1], rtol=0, atol=1e-7 * delta)


@pytest.mark.parametrize("delta", [5e-324, 1e-300, 0.3, 1.0, 1e30, 1e308])
def test_as_many_as_may_be_at_the_far_side_of_a_bin_fit(delta):
    most = 240_000
    packing = Packing.of(most, delta)
    packed = most * ((1 << packing.shift) + int(packing.widest * packing.unit))
    assert packed < 2**63 and packed >> packing.shift == most
    assert packing.widest >= min(2 * delta, 2.0**129) and 1 / packing.unit <= max(2.0**-24 * delta, 2.0**-926)
