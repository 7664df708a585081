"""More entries in one bin than float32 can count: 2**24 + 1 is no float32 number."""

import os

import pytest
import torch

from losses import triton_support
from losses.ranking.torch_passes import make_passes

MANY = 2**24 + 3


@pytest.mark.parametrize("path", ["operators", pytest.param("kernels", marks=pytest.mark.slow)])
def test_counts_and_sums_beyond_the_integers_of_float32(path, monkeypatch):
    if path == "kernels":
        pytest.importorskip("triton")
        if os.environ.get("TRITON_INTERPRET") != "1":
            pytest.skip("Triton compiles its kernels in this process")
        monkeypatch.setattr("losses.ranking.triton_passes.BLOCK", 2**20)  # few programs to interpret
        monkeypatch.setattr(triton_support, "usable", lambda logits: True)
    third = 0.3359375  # sums of it are exact in float64
    logits, targets = torch.tensor(third).expand(MANY), torch.tensor(0, dtype=torch.int8).expand(MANY)
    passes = make_passes(logits)
    positives = torch.zeros(1, dtype=torch.float64)
    passes.make_bins(positives, positives, 1.0, torch.float32, logits)
    histogram = passes.histogram(logits, targets)
    assert histogram.tolist() == [[0, MANY, 0], [0, MANY * third, 0]]
    false_positives = passes.rank(histogram, positives)[0]
    assert false_positives.item() == MANY * (third + 1) / 2
