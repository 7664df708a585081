"""Rank & Sort Loss of batches drawn by hypothesis."""

import torch
from drawn_batches import DELTAS, ENTRIES, PROPERTY, TARGET_TYPES, as_tensors
from hypothesis import given
from hypothesis import strategies as st
from rank_sort_oracle import dense_rank_sort
from ranking_batches import assert_balanced
from ranking_oracle import assert_close
from test_rank_sort import assert_agrees, run

from losses.ranking.smaller_keys import sum_over_smaller_keys


def batch_of(entries, dtype=torch.float32):
    logits, targets, values = as_tensors(entries, dtype)
    return logits, targets, values / 2  # IoUs are 0 to 1


@PROPERTY
@given(ENTRIES, DELTAS, st.sampled_from(TARGET_TYPES))
def test_equals_the_double_sum(entries, delta, target_type):
    logits, targets, ious = batch_of(entries)
    results = run(logits, targets.to(target_type), ious, delta)
    assert_agrees(results, dense_rank_sort(logits, targets, ious, delta))
    for gradient in results[2:]:
        assert_balanced(gradient)
        assert not gradient[targets == -1].any()
    assert not results[3][targets != 1].any()


@PROPERTY
@given(ENTRIES, DELTAS)
def test_equals_the_double_sum_in_float64(entries, delta):
    logits, targets, ious = batch_of(entries, torch.float64)
    results = run(logits, targets, ious.double(), delta)
    assert all(result.dtype == torch.float64 for result in results)
    assert_agrees(results, dense_rank_sort(logits, targets, ious, delta), 1e-10, 1e-9)


@PROPERTY
@given(
    st.lists(st.tuples(st.floats(-1e4, 1e4, width=32), st.sampled_from([1, 0]), st.floats(0, 2, width=32)), max_size=60)
)
def test_scattered_logits_stay_finite_balanced_and_exact(entries):
    logits, targets, ious = batch_of(entries)
    results = run(logits, targets, ious)
    assert all(result.isfinite().all() for result in results)
    assert_balanced(results[2]), assert_balanced(results[3])
    assert_agrees(results, dense_rank_sort(logits, targets, ious, 0.5))


@PROPERTY
@given(st.lists(st.tuples(st.integers(-6, 6), st.integers(0, 4)), max_size=70), DELTAS)
def test_sums_over_smaller_keys_equal_the_sums_over_pairs(entries, delta):
    logits = torch.tensor([entry[0] / 4 for entry in entries], dtype=torch.float64)
    keys = torch.tensor([float(entry[1]) for entry in entries])
    weights = torch.stack([torch.ones_like(logits), 1 + logits.abs()])
    pairs = ((logits[None, :] - logits[:, None]) / (2 * delta) + 0.5).clamp(0, 1) * (keys[None, :] < keys[:, None])
    assert_close(sum_over_smaller_keys(logits, keys, weights, delta), weights @ pairs.T, 1e-13)
