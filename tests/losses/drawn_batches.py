"""Batches to rank, drawn by hypothesis; without it, the tests that import them are skipped."""

import pytest
import torch

pytest.importorskip("hypothesis")
from hypothesis import settings
from hypothesis import strategies as st

PROPERTY = settings(deadline=None, derandomize=True, max_examples=80)

LOGITS = st.one_of(
    st.integers(-8, 8).map(lambda k: k / 4),  # many ties, and hits on the breakpoints
    st.floats(-3, 3, width=32),
    st.floats(-50, 50, width=32),
)
ENTRIES = st.lists(st.tuples(LOGITS, st.sampled_from([1, 0, 0, 0, -1]), st.floats(0, 2, width=32)), max_size=60)
DELTAS = st.one_of(st.sampled_from([0.1, 0.25, 0.5, 1.0, 2.0, 4.0]), st.floats(0.1, 4))
TARGET_TYPES = [torch.int64, torch.int32, torch.int8, torch.float32, torch.float64, torch.bfloat16]


def as_tensors(entries, dtype=torch.float32):
    logits = torch.tensor([entry[0] for entry in entries], dtype=dtype)
    targets = torch.tensor([entry[1] for entry in entries], dtype=torch.int64)
    return logits, targets, torch.tensor([entry[2] for entry in entries if entry[1] == 1], dtype=torch.float32)
