"""How a run ends: signals, full disks, losses that are not finite; and what is on disk by then."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from in_process import ALONE, curve, train

from engine import load_config
from engine.run.checkpoint import load_checkpoint
from engine.run.run_folder import RunFolder
from engine.training.train_step import TrainingError, TrainStep
from engine.training.trainer import Trainer


def test_a_step_that_is_not_finite_is_skipped_and_too_many_stop_the_run(config_file):
    config = load_config(config_file, ["run.max_bad_steps=2"])
    folder = RunFolder(config)
    trainer = Trainer(config, ALONE, folder, None)
    step: TrainStep = trainer.train_step
    weights = [parameter.detach().clone() for parameter in step.parameters]
    step.detector.pixel_mean[:] = torch.nan
    with pytest.raises(TrainingError, match=r"step 2: .* images \[.*max_bad_steps.*bad_batch.*lower optimizer.lr"):
        trainer.fit()
    assert all(torch.equal(old, new) for old, new in zip(weights, step.parameters, strict=True))
    assert [value for _, value in curve(folder, "train/skipped_steps")] == [1]
    batch = torch.load(folder.path / "bad_batch.rank0.pt", weights_only=True)
    assert batch["step"] == 2
    assert set(batch["losses"]) == {"loss", "loss_cls", "loss_loc", "grad_norm"}
    (images,), (targets,) = batch["images"], batch["targets"]
    assert (images.dtype, images.shape) == (torch.uint8, (4, 3, 64, 64))
    assert [set(target) >= {"image_id", "boxes", "labels"} for target in targets] == [True] * 4


@pytest.mark.usefixtures("no_evaluation")
def test_a_full_disk_ends_training_and_leaves_the_last_checkpoint(config_file):
    _, folder = train(config_file, "schedule.max_steps=1")
    before = folder.last.read_bytes()
    (folder.last.parent / f".last.pt.{os.getpid()}.tmp").symlink_to("/dev/full")
    trainer = Trainer(load_config(config_file), ALONE, folder, folder.find_checkpoint("auto", False))
    folder.begin = lambda *_: None  # it would remove the trap
    with pytest.raises(OSError, match="No space left on device") as caught:
        trainer.fit()
    assert caught.value.filename == str(folder.last)
    assert folder.last.read_bytes() == before


@pytest.mark.parametrize(
    ("number", "status"),
    [
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow),  # test_processes.py ends processes by it
        (signal.SIGINT, 130),
        pytest.param(signal.SIGUSR1, 138, marks=pytest.mark.slow),
    ],
)
def test_signals_finish_the_step_and_write_a_checkpoint(config_file, tmp_path, number, status):
    line = [sys.executable, "train.py", "--config", str(config_file), "schedule.epochs=10000"]
    root = Path(__file__).resolve().parents[3]
    with subprocess.Popen(line, cwd=root, stderr=subprocess.PIPE, text=True) as process:
        folder = RunFolder(load_config(config_file))
        for text in process.stderr:
            if text.startswith("train:"):
                break
        process.send_signal(number)
        errors = process.stderr.read()
    assert process.returncode == status, errors
    assert "Traceback" not in errors
    state = load_checkpoint(folder.last)
    assert state["step"] >= 1


def test_an_interrupt_before_the_first_step_is_no_traceback(config_file):
    program = (
        "import train, engine.run.datasets as datasets\n"
        "def interrupted(*_): raise KeyboardInterrupt\n"
        "datasets.prepare_data = interrupted\n"
        "train.main()"
    )
    line = [sys.executable, "-c", program, "--config", str(config_file)]
    done = subprocess.run(line, cwd=Path(__file__).resolve().parents[3], capture_output=True, text=True)
    assert done.returncode == 130
    assert done.stderr == "error: interrupted\n"


def test_the_last_steps_are_saved_before_they_are_evaluated(config_file, monkeypatch):
    def killed(self):
        raise KeyboardInterrupt  # as good as SIGKILL: nothing is written after it

    monkeypatch.setattr(Trainer, "_evaluate", killed)
    config = load_config(config_file, ["schedule.max_steps=2"])
    folder = RunFolder(config)
    with pytest.raises(KeyboardInterrupt):
        Trainer(config, ALONE, folder, None).fit()
    state = load_checkpoint(folder.last)
    assert (state["step"], state["evaluated_step"]) == (2, 0)


@pytest.mark.usefixtures("no_evaluation")
def test_steps_go_on_while_a_checkpoint_is_written(config_file, monkeypatch):
    """The one after step 3 waits for step 4, and has the weights of step 3 all the same."""
    more = ("evaluation.every=9", "run.keep_checkpoints=3", "schedule.max_steps=4")
    _, plain = train(config_file, *more, "run.name=plain")
    step_4, saved = threading.Event(), []
    take_step, save_last = TrainStep.__call__, RunFolder.save_last

    def step(self, *args):
        result = take_step(self, *args)
        if self.done == 4:
            step_4.set()
        return result

    def save(self, state):
        saved.append((state["step"], step_4.wait(60)))
        save_last(self, state)

    monkeypatch.setattr(TrainStep, "__call__", step)
    monkeypatch.setattr(RunFolder, "save_last", save)
    _, beside = train(config_file, *more, "run.name=beside")
    assert saved[0] == (3, True)
    states = [load_checkpoint(next(folder.last.parent.glob("last.1.pt"))) for folder in (plain, beside)]
    assert [state["step"] for state in states] == [3, 3]
    assert all(torch.equal(value, states[1]["model"][name]) for name, value in states[0]["model"].items())
    momenta = [state["optimizer"]["state"] for state in states]
    assert momenta[0] and all(
        torch.equal(m["momentum_buffer"], momenta[1][i]["momentum_buffer"]) for i, m in momenta[0].items()
    )


def test_a_signal_waits_for_the_checkpoint(config_file, monkeypatch):
    left = threading.Event()
    train_on, save_last, take_step = Trainer._train, RunFolder.save_last, TrainStep.__call__

    def step(self, *args):
        if self.done == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return take_step(self, *args)

    def train_and_leave(self, stop):
        try:
            return train_on(self, stop)
        finally:
            left.set()

    def save(self, state):
        assert left.wait(60)  # the loop is over before the file is there
        save_last(self, state)

    monkeypatch.setattr(TrainStep, "__call__", step)
    monkeypatch.setattr(Trainer, "_train", train_and_leave)
    monkeypatch.setattr(RunFolder, "save_last", save)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
    try:
        status, folder = train(config_file)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert status == 128 + signal.SIGTERM
    assert load_checkpoint(folder.last)["step"] == 2
