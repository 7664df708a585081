"""aLRP and AP Loss of batches drawn by hypothesis."""

import torch
from drawn_batches import DELTAS, ENTRIES, LOGITS, PROPERTY, TARGET_TYPES, as_tensors
from hypothesis import given
from hypothesis import strategies as st
from ranking_batches import assert_balanced
from ranking_oracle import assert_close, dense
from test_ranking_losses import assert_agrees, run


@PROPERTY
@given(ENTRIES, DELTAS, st.sampled_from(TARGET_TYPES))
def test_equals_the_double_sum(entries, delta, target_type):
    logits, targets, loc_errors = as_tensors(entries)
    results = run(logits, targets.to(target_type), loc_errors, delta)
    assert 0 <= results[0].item() < 1 and results[1].item() >= 0
    assert_agrees(results, dense(logits, targets, loc_errors, delta))
    assert not results[2][targets == -1].any() and not results[5][targets == -1].any()


@PROPERTY
@given(ENTRIES, DELTAS)
def test_equals_the_double_sum_in_float64(entries, delta):
    logits, targets, loc_errors = as_tensors(entries, torch.float64)
    results = run(logits, targets, loc_errors.double(), delta)
    assert all(result.dtype == torch.float64 for result in results)
    assert_agrees(results, dense(logits, targets, loc_errors, delta), 1e-10, 1e-10)


@PROPERTY
@given(ENTRIES, DELTAS, st.sampled_from([torch.bfloat16, torch.float16]))
def test_low_precision_logits_are_ranked_in_float32(entries, delta, dtype):
    logits, targets, loc_errors = as_tensors(entries, dtype)
    results = run(logits, targets, loc_errors, delta)
    expected = dense(logits, targets, loc_errors, delta)
    assert results[0].dtype == torch.float32 and results[2].dtype == dtype
    for index in (0, 1, 3, 4):
        assert_close(results[index], expected[index], 2e-6)
    for index in (2, 5):  # rounded to the logits' type
        assert_close(results[index], expected[index], torch.finfo(dtype).eps)


@PROPERTY
@given(st.lists(st.tuples(st.booleans(), LOGITS), min_size=1, max_size=30))
def test_bool_targets_have_no_ignored_entries(entries):
    targets = torch.tensor([entry[0] for entry in entries])
    logits = torch.tensor([entry[1] for entry in entries])
    loc_errors = torch.ones(int(targets.sum()))
    assert_agrees(run(logits, targets, loc_errors), dense(logits, targets.long(), loc_errors, 1.0))


@PROPERTY
@given(
    st.lists(
        st.tuples(st.floats(-1e4, 1e4, width=32), st.sampled_from([1, 0, 0]), st.floats(0, 2, width=32)),
        min_size=1,
        max_size=60,
    ),
    st.sampled_from([0.1, 1.0, 4.0]),
)
def test_scattered_logits_stay_finite_balanced_and_exact(entries, delta):
    logits, targets, loc_errors = as_tensors(entries)
    results = run(logits, targets, loc_errors, delta)
    assert all(result.isfinite().all() for result in results)
    assert_balanced(results[2])
    assert_agrees(results, dense(logits, targets, loc_errors, delta))


@PROPERTY
@given(ENTRIES, DELTAS)
def test_positives_and_negatives_get_the_same_gradient_mass(entries, delta):
    logits, targets, loc_errors = as_tensors(entries)
    _, _, alrp, _, _, ap = run(logits, targets, loc_errors, delta)
    for gradient in (alrp, ap):
        assert_balanced(gradient)
        assert (gradient[targets == 1] <= 0).all() and (gradient[targets == 0] >= 0).all()
