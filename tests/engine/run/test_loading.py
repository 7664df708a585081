"""Waiting for batches that come late, never, or from a process that is no more."""

import signal
import time

import pytest

from engine.run import loading
from engine.run.loading import LoaderError, loader_errors, wait_for_each
from engine.run.stop_signal import StoppedWaiting, StopSignal

LATE = RuntimeError("DataLoader timed out after 60 seconds")


class Loader:
    """Gives or raises what is in a list."""

    def __init__(self, *events: object) -> None:
        self._events = iter(events)

    def __iter__(self) -> "Loader":
        return self

    def __next__(self) -> object:
        event = next(self._events)
        if isinstance(event, Exception):
            raise event
        return event


def test_a_late_batch_is_waited_for_and_a_lost_one_is_not():
    patience = loading.PATIENCE - 1
    assert list(wait_for_each(Loader(1, *[LATE] * patience, 2, *[LATE] * patience, 3))) == [1, 2, 3]
    with pytest.raises(LoaderError, match="no batch came for 300 seconds"), loader_errors():
        list(wait_for_each(Loader(1, *[LATE] * (patience + 1), 2)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "DataLoader worker (pid 7) is killed by signal: Killed. ",
            r"lost \(is killed by signal: Killed\): .*data\.workers",
        ),
        ("DataLoader worker (pid(s) 7, 8) exited unexpectedly", r"lost \(exited unexpectedly\)"),
        ("DataLoader worker (pid 7) exited unexpectedly with exit code 74. Details are lost.", "/dev/shm"),
        ("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that …", "/dev/shm"),
    ],
)
def test_a_lost_loader_process_is_one_line(text, expected):
    with pytest.raises(LoaderError, match=expected) as caught, loader_errors():
        raise RuntimeError(text)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_status == 1


def test_the_cause_of_the_loss_is_told_where_it_is_known():
    with pytest.raises(LoaderError, match="/dev/shm"), loader_errors():
        known = RuntimeError("DataLoader worker (pid 7) exited unexpectedly with exit code 74. Details are lost.")
        raise RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly") from known


def test_other_errors_pass():
    for text in ("Caught KeyError in DataLoader worker process 0.\nTraceback …", "shape mismatch"):
        with pytest.raises(RuntimeError, match=text.split("\n")[0]) as caught, loader_errors():
            raise RuntimeError(text)
        assert not isinstance(caught.value, LoaderError)


def test_a_signal_ends_a_wait_for_data_and_nothing_else(monkeypatch):
    monkeypatch.setattr("engine.run.stop_signal.WAIT_SECONDS", 0.05)

    def never():
        signal.raise_signal(signal.SIGUSR1)
        while True:
            signal.pause()
        yield

    with StopSignal() as stop:
        with pytest.raises(StoppedWaiting):
            next(wait_for_each(never()))
        signal.pause()  # the alarm rings again, and a process that does not wait for data goes on
    assert stop.number == signal.SIGUSR1
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)


def test_after_a_signal_data_that_do_come_are_waited_for(monkeypatch):
    monkeypatch.setattr("engine.run.stop_signal.WAIT_SECONDS", 5.0)

    def slow():
        signal.raise_signal(signal.SIGUSR1)
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)  # rings in every wait
        for number in range(30):
            time.sleep(0.02)
            yield number

    with StopSignal() as stop:
        assert list(wait_for_each(slow())) == list(range(30))
    assert stop.number == signal.SIGUSR1
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)
