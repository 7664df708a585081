"""Learning rate by step, and the rule for other batch sizes."""

import pytest

from engine.run.config import parse_config
from engine.run.schedule import build_schedule


def schedule(num_images: int = 80, **groups):
    values = {
        "data": {"batch_size": 8},
        "optimizer": {"lr": 1.0, "base_batch_size": 8},
        "schedule": {"epochs": 10, "milestones": [5, 8], "warmup_steps": 10, "warmup_factor": 0.1},
    }
    for group, extra in groups.items():
        values[group] = values[group] | extra
    return build_schedule(parse_config(values, "test"), num_images)


def test_step_schedule_by_hand():
    rates = schedule()
    assert (rates.steps_per_epoch, rates.total_steps) == (10, 100)
    assert rates.learning_rate(0) == pytest.approx(0.1)
    assert rates.learning_rate(5) == pytest.approx(0.1 + 0.9 * 0.5)
    assert [rates.learning_rate(step) for step in (10, 49, 50, 79, 80, 99)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01, 0.01]
    )


def test_cosine_schedule_falls_from_the_rate_to_zero():
    rates = schedule(schedule={"kind": "cosine", "warmup_steps": 0})
    assert rates.learning_rate(0) == 1
    assert rates.learning_rate(50) == pytest.approx(0.5)
    assert rates.learning_rate(99) == pytest.approx(0.000247, rel=1e-2)


def test_half_the_batch_halves_the_rate_and_doubles_the_warm_up():
    rates = schedule(data={"batch_size": 4})
    assert (rates.lr, rates.warmup_steps, rates.steps_per_epoch) == (0.5, 20, 20)
    assert "1 -> 0.5" in rates.summary
    assert "10 -> 20" in rates.summary


def test_the_rule_can_be_turned_off():
    rates = schedule(data={"batch_size": 4}, optimizer={"scale_lr": False})
    assert (rates.lr, rates.warmup_steps) == (1.0, 10)
    assert "not scaled" in rates.summary


def test_an_epoch_drops_the_images_that_fill_no_batch():
    assert schedule(num_images=87).steps_per_epoch == 10
