"""The kernels of aLRP and AP Loss on batches drawn by hypothesis."""

import pytest
import torch
from drawn_batches import DELTAS, ENTRIES, TARGET_TYPES, as_tensors
from hypothesis import given, settings
from hypothesis import strategies as st
from ranking_batches import assert_balanced
from ranking_oracle import assert_close, dense
from test_ranking_losses import assert_agrees
from test_triton_passes import run

FEW = settings(deadline=None, derandomize=True, max_examples=15)


@FEW
@given(ENTRIES, DELTAS, st.sampled_from(TARGET_TYPES))
def test_equals_the_double_sum(device, entries, delta, target_type):
    logits, targets, loc_errors = as_tensors(entries)
    results = run(device, logits, targets.to(target_type), loc_errors, delta)
    assert_agrees(results, dense(logits, targets, loc_errors, delta))
    for gradient in (results[2], results[5]):
        assert_balanced(gradient)
        assert not gradient[targets == -1].any()


@FEW
@given(ENTRIES, DELTAS, st.sampled_from([torch.bfloat16, torch.float16]))
def test_low_precision_logits_are_read_as_they_are(device, entries, delta, dtype):
    logits, targets, loc_errors = as_tensors(entries, dtype)
    results = run(device, logits, targets, loc_errors, delta)
    expected = dense(logits, targets, loc_errors, delta)
    for index in (0, 1, 3, 4):
        assert_close(results[index], expected[index], 2e-6)
    for index in (2, 5):  # rounded to the logits' type
        assert results[index].dtype == dtype
        assert_close(results[index], expected[index], torch.finfo(dtype).eps)


@pytest.mark.slow  # a part of what test_far_logits.py draws
@FEW
@given(st.lists(st.tuples(st.floats(-1e4, 1e4, width=32), st.sampled_from([1, 0, 0]), st.floats(0, 2, width=32))))
def test_scattered_logits_stay_finite_balanced_and_exact(device, entries):
    logits, targets, loc_errors = as_tensors(entries)
    results = run(device, logits, targets, loc_errors)
    assert all(result.isfinite().all() for result in results)
    assert_balanced(results[2])
    assert_agrees(results, dense(logits, targets, loc_errors, 1.0))
