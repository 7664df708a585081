"""The pace of a run, and its one warning."""

import logging

import pytest

from engine.run.clock import Clock, Pace


@pytest.fixture
def warnings_of(caplog):
    """The warnings that steps of the given durations cause."""

    def add(seconds: list[float]) -> list[str]:
        pace = Pace()
        with caplog.at_level(logging.WARNING):
            for each in seconds:
                pace.add(each)
        return caplog.messages

    return add


def test_a_run_that_becomes_five_times_as_slow_is_warned_of_once(warnings_of):
    warnings = warnings_of([0.1] * 30 + [0.5] * 40 + [2.0] * 40)
    assert len(warnings) == 1 and "a step takes 0.5 s now and took 0.1 s before" in warnings[0]


@pytest.mark.parametrize(
    "seconds",
    [
        [0.1] * 100 + [0.49] * 100,  # less than five times
        [9.0] * 10 + [0.1] * 100,  # a slow start
        ([0.1] * 19 + [60.0]) * 10,  # single steps, such as those that wait for a checkpoint
        [0.1] * 100 + [0.5] * 9 + [0.1] * 100,
        [0.1] * 19 + [0.5] * 20,  # too short a run to know its pace
    ],
)
def test_other_runs_are_not(warnings_of, seconds):
    assert not warnings_of(seconds)


def test_a_reading_is_of_the_time_since_the_last_one(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("engine.run.clock.time.monotonic", lambda: now[0])
    clock = Clock()
    for waited, worked in ((3, 1), (2, 4)):
        with clock.waiting_for_data():
            now[0] += waited
        now[0] += worked
        clock.step_done()
    assert clock.read() == (10, 5, 2)
    now[0] += 7
    assert clock.read() == (7, 0, 0)
