"""Checkpoints beside the loop: what is written, in which order, and who hears of a failure."""

import threading

import pytest
import torch

from engine.run.checkpoint_writer import CheckpointWriter

FULL = OSError(28, "No space left on device", "last.pt")


def fail(state: dict) -> None:
    raise FULL


def test_the_state_is_that_of_the_moment():
    """Weights, optimizer and lists go on changing while it is being written."""
    weight, may_write, written = torch.zeros(3), threading.Event(), []
    state = {"model": {"weight": weight}, "optimizer": {"state": {0: {"momentum": weight}}}, "thresholds": [0.5]}

    def write(snapshot: dict) -> None:
        assert may_write.wait(30)
        written.append(snapshot)

    with CheckpointWriter() as writer:
        writer.save(write, state)
        weight += 1
        state["thresholds"][0] = 0.7
        assert not written  # `save` has returned, and nothing is written yet
        may_write.set()
    assert written[0]["model"]["weight"].tolist() == [0, 0, 0]
    assert written[0]["optimizer"]["state"][0]["momentum"].tolist() == [0, 0, 0]
    assert written[0]["thresholds"] == [0.5]


def test_one_is_written_at_a_time_and_none_is_overtaken():
    events = []

    def write(snapshot: dict) -> None:
        events.append(("begins", snapshot["step"]))
        torch.ones(1000).sum()  # other threads may run
        events.append(("ends", snapshot["step"]))

    with CheckpointWriter() as writer:
        for step in range(20):
            writer.save(write, {"step": step})
    assert events == [(event, step) for step in range(20) for event in ("begins", "ends")]


def test_the_next_step_hears_of_a_failure():
    writer = CheckpointWriter()
    writer.check()
    writer.save(fail, {})
    with pytest.raises(OSError) as caught:
        while True:
            writer.check()
    assert caught.value is FULL
    writer.check()  # it is told once


@pytest.mark.parametrize("end", ["save", "exit", "SystemExit"])
def test_a_failure_ends_the_run_at_the_latest_when_that_ends(end):
    with pytest.raises(OSError) as caught, CheckpointWriter() as writer:
        writer.save(fail, {})
        if end == "save":
            writer.save(lambda state: None, {})
        if end == "SystemExit":
            raise SystemExit(143)
    assert caught.value is FULL


def test_another_error_is_told_first_and_waits_too(caplog):
    done = []
    with pytest.raises(ValueError, match="a bug"), CheckpointWriter() as writer:
        writer.save(done.append, {"step": 1})
        raise ValueError("a bug")
    assert done == [{"step": 1}]
    with pytest.raises(ValueError, match="a bug"), CheckpointWriter() as writer:
        writer.save(fail, {})
        raise ValueError("a bug")
    assert "the last checkpoint was not written" in caplog.text and "No space left on device" in caplog.text


@pytest.mark.gpu
def test_a_snapshot_of_a_gpu_is_written_from_the_cpu():
    weight, written = torch.zeros(1 << 20, device="cuda"), []
    with CheckpointWriter() as writer:
        writer.save(written.append, {"model": {"weight": weight}, "list": [weight]})
        weight += 1
    tensors = [written[0]["model"]["weight"], written[0]["list"][0]]
    assert all(tensor.device.type == "cpu" and not tensor.any() for tensor in tensors)
