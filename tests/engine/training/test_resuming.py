"""A run that goes on is the run that never stopped."""

import json
import shutil

import pytest
import torch
from in_process import ALONE, curve, train
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from engine import load_config
from engine.run.checkpoint import CheckpointError, checkpoint_history, load_checkpoint, save_checkpoint
from engine.run.clock import Clock
from engine.run.run_folder import RunFolder
from engine.training import validation
from engine.training.trainer import Trainer


@pytest.fixture(scope="module")
def kept(tmp_path_factory, write_config):
    """Configuration of a run of three of its six steps, and a copy of its folder."""
    config_file = write_config(tmp_path_factory.mktemp("begun"))
    _, folder = train(config_file, "schedule.max_steps=3")
    return config_file, shutil.copytree(folder.path, config_file.with_name("copy"))


@pytest.fixture
def begun(kept):
    """Configuration and folder of that run as it was left, whatever another test did to it."""
    config_file, copy = kept
    folder = RunFolder(load_config(config_file))
    shutil.rmtree(folder.path, ignore_errors=True)
    shutil.copytree(copy, folder.path)
    return config_file, folder


def test_an_optimizer_state_that_fits_no_parameter_is_refused(finished, write_config, tmp_path):
    state = load_checkpoint(finished.last)
    values = state["optimizer"]["state"]
    first = next(iter(values))
    settings = state["optimizer"]["param_groups"][0]
    config = load_config(write_config(tmp_path), ["optimizer.ema_decay=0.9"])
    settings["momentum"] = "x"  # the configuration's counts
    trainer = Trainer(config, ALONE, RunFolder(config), state)
    assert trainer.train_step.optimizer.param_groups[0]["momentum"] == 0.9
    for value in (torch.zeros(1, 2, 3), 5, "x"):
        values[first] = {"momentum_buffer": value}
        with pytest.raises(CheckpointError, match="momentum_buffer does not fit"):
            Trainer(config, ALONE, RunFolder(config), state)


def test_stopping_anywhere_and_resuming_changes_nothing(config_file, finished):
    status, folder = train(config_file, "schedule.max_steps=2", "optimizer.ema_decay=0.9")
    assert status == 0
    assert folder.metrics()[-1]["step"] == 2
    train(config_file, "schedule.max_steps=5", "optimizer.ema_decay=0.9", "evaluation.every=2", resume="auto")
    train(config_file, "optimizer.ema_decay=0.9", "evaluation.train_images=12", resume="auto")
    resumed, whole = load_checkpoint(folder.last), load_checkpoint(finished.last)
    for part in ("model", "ema"):
        assert all(torch.equal(resumed[part][name], value) for name, value in whole[part].items())
    for index, state in whole["optimizer"]["state"].items():
        assert torch.equal(resumed["optimizer"]["state"][index]["momentum_buffer"], state["momentum_buffer"])
    assert curve(folder, "train/loss") == curve(finished, "train/loss")
    assert folder.metrics()[-1] == finished.metrics()[-1]


def test_resume_auto_starts_afresh_without_a_checkpoint_and_ends_at_once_when_finished(config_file, here):
    _, folder = train(config_file, "schedule.max_steps=1", resume="auto")
    folder.last.unlink()
    folder.best.unlink()
    train(config_file, "schedule.max_steps=1", resume="auto")
    before = folder.last.stat().st_mtime_ns
    result = here("train.py", "--config", config_file, "--resume", "auto", "schedule.max_steps=1")
    assert result.returncode == 0
    assert "finished" in result.stdout
    assert folder.last.stat().st_mtime_ns == before


def test_an_evaluation_that_was_interrupted_is_made_up_for_and_leaves_one_point(begun):
    config_file, folder = begun
    state = load_checkpoint(folder.last)
    save_checkpoint(folder.last, state | {"evaluated_step": 0, "thresholds": None})
    train(config_file, "schedule.max_steps=3", resume="auto")
    assert [record["step"] for record in folder.metrics()] == [3]
    assert load_checkpoint(folder.last)["thresholds"] == state["thresholds"]
    train(config_file, resume="auto")
    for path in folder.path.glob("events*"):  # what TensorBoard shows does not depend on its own repair
        assert len(path.read_bytes()) > 0
    everything = {"scalars": 0, "images": 0}
    events = EventAccumulator(str(folder.path), everything, purge_orphaned_data=False).Reload()
    for tag, steps in (("eval/AP", [3, 6]), ("train/loss", [1, 2, 3, 4, 5, 6])):
        assert [point.step for point in events.Scalars(tag)] == steps
    for tag in ("eval/examples/0", "curves/precision_recall", "curves/lrp"):
        assert [picture.step for picture in events.Images(tag)] == [3, 6]


@pytest.mark.usefixtures("no_evaluation")
def test_skipped_steps_are_counted_over_a_resume(begun):
    config_file, folder = begun
    state = load_checkpoint(folder.last)
    save_checkpoint(folder.last, state | {"skipped": 3, "skipped_in_a_row": 1})
    train(config_file, "schedule.max_steps=4", resume="auto")
    state = load_checkpoint(folder.last)
    assert (state["skipped"], state["skipped_in_a_row"]) == (3, 0)


def test_a_damaged_last_checkpoint_gives_way_to_the_one_before_it(config_file, finished, caplog):
    _, folder = train(config_file, "run.checkpoint_every=1", "schedule.max_steps=2", "optimizer.ema_decay=0.9")
    good = load_checkpoint(folder.last.with_name("last.1.pt"))
    content = bytearray(folder.last.read_bytes())
    content[len(content) // 2] ^= 1
    folder.last.write_bytes(content)
    train(config_file, "optimizer.ema_decay=0.9", "evaluation.every=2", resume="auto")
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert any("last.pt" in text and "checksum" in text for text in warnings)
    assert any("last.1.pt" in text and f"step {good['step']}" in text for text in warnings)
    assert folder.last.with_name("last.pt.damaged").read_bytes() == content
    resumed, whole = load_checkpoint(folder.last), load_checkpoint(finished.last)
    assert all(torch.equal(resumed["model"][name], value) for name, value in whole["model"].items())
    assert curve(folder, "train/loss") == curve(finished, "train/loss")
    for path in (folder.last, folder.last.with_name("last.1.pt"), folder.best):
        path.write_bytes(b"PK")
    with pytest.raises(CheckpointError, match=r"last\.pt.*--overwrite"):
        folder.find_checkpoint("auto", False)


@pytest.mark.usefixtures("no_evaluation")
def test_what_killed_writers_left_is_removed(begun):
    config_file, folder = begun
    left = [folder.last.with_name(".last.pt.12345.tmp"), folder.path / ".metrics.jsonl.12345.tmp"]
    for path in left:
        path.write_bytes(b"half")
    train(config_file, "schedule.max_steps=4", resume="auto")
    assert not any(path.exists() for path in left)


def test_after_torchrun_restarts_a_run_goes_on_whatever_the_options_said(begun):
    config_file, folder = begun
    assert folder.find_checkpoint(None, False, restarted=True)["step"] == 3
    assert folder.find_checkpoint("elsewhere.pt", False, restarted=True)["step"] == 3
    assert folder.find_checkpoint(None, True, restarted=False) is None  # --overwrite, killed before it began
    assert folder.find_checkpoint(None, True, restarted=True) is None
    folder.begin(load_config(config_file), 0, 0)
    assert folder.find_checkpoint(None, True, restarted=True) is None
    assert not (folder.path / "config.yaml").with_name(".to_be_replaced").exists()


def test_random_numbers_of_a_step_do_not_depend_on_where_the_run_began(config_file):
    config = load_config(config_file)
    draws = []
    for start in (0, 2):
        step = Trainer(config, ALONE, RunFolder(config), None).train_step
        batches = [next(iter(Trainer(config, ALONE, RunFolder(config), None).batches))]
        step.done = start
        seen = []
        step.detector.register_forward_pre_hook(lambda *_, seen=seen: seen.append(torch.rand(2).tolist()))
        while step.done < 4:
            step(batches)
        draws.append(seen)
    assert draws[1] == draws[0][2:]


@pytest.mark.slow
def test_after_a_rewind_the_best_is_the_best_of_what_counts(config_file, monkeypatch, caplog):
    steps, aps = ["run.checkpoint_every=1", "run.keep_checkpoints=4"], [0.30, 0.35, 0.20]
    plain = validation.evaluate

    def evaluate(*arguments, **options):
        result = plain(*arguments, **options)
        result.metrics["AP"] = aps.pop(0)
        return result

    monkeypatch.setattr(validation, "evaluate", evaluate)
    _, folder = train(config_file, *steps, "evaluation.train_images=0")
    early = next(path for path in checkpoint_history(folder.last) if load_checkpoint(path)["step"] == 4)
    caplog.clear()
    with caplog.at_level("INFO"):
        train(config_file, *steps, "evaluation.train_images=0", "schedule.max_steps=5", resume=str(early))
    assert [(record["step"], record["AP"]) for record in folder.metrics()] == [(3, 0.3), (5, 0.2)]
    assert load_checkpoint(folder.best)["step"] == 5 and "best AP on val: 0.200 at epoch 1" in caplog.text
    assert "AP 0.200 on val; best 0.200 at epoch 1" in caplog.text
    aside = folder.path / "earlier.1"
    assert load_checkpoint(aside / "best.pt")["step"] == 6
    assert [json.loads(line)["step"] for line in (aside / "metrics.jsonl").read_text().splitlines()] == [3, 6]


@pytest.mark.slow
def test_a_run_that_was_rewound_and_killed_goes_on_from_there(config_file, monkeypatch):
    steps = ["run.checkpoint_every=1", "run.keep_checkpoints=4"]
    _, folder = train(config_file, *steps)
    early = folder.last.with_name("last.3.pt")
    at = load_checkpoint(early)["step"]
    assert at < 6
    monkeypatch.setattr(Trainer, "_train", lambda *_: 1 / 0)  # killed before its first step
    with pytest.raises(ZeroDivisionError):
        train(config_file, *steps, resume=str(early))
    monkeypatch.undo()
    assert load_checkpoint(folder.last)["step"] == at
    train(config_file, *steps, resume="auto")
    assert [record["step"] for record in folder.metrics()] == [3, 6]
    assert [step for step, _ in curve(folder, "train/loss")] == [1, 2, 3, 4, 5, 6]


def test_what_the_newest_evaluation_said_is_known_after_a_resume(config_file):
    config = load_config(config_file)
    folder = RunFolder(config)
    begun = Trainer(config, ALONE, folder, None)
    known = {"best_ap": 0.4, "thresholds": [0.5] * len(begun.dataset.class_names), "evaluated_step": 3}
    known["evaluated_ap"] = {"AP": 0.3, "train_AP": 0.6}
    folder.begin(config, 0, 0)
    for save in (folder.save_best, folder.save_last):
        save(begun._state() | known | {"step": 4, "epoch": 1})
    state = Trainer(config, ALONE, folder, folder.find_checkpoint("auto", False))._state()
    assert {name: state[name] for name in known} == known


@pytest.mark.usefixtures("no_evaluation")
def test_a_checkpoint_every_two_steps_is_one_after_the_second(config_file, monkeypatch):
    saved = []
    monkeypatch.setattr(RunFolder, "save_last", lambda folder, state: saved.append(state["step"]))
    config = load_config(config_file, ["run.checkpoint_every=2", "schedule.max_steps=5", "evaluation.every=9"])
    Trainer(config, ALONE, RunFolder(config), None).fit()
    assert sorted(set(saved)) == [2, 3, 4, 5]  # 3 is the end of an epoch, 5 that of the run


def test_a_checkpoint_is_due_after_the_configured_minutes(config_file, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("engine.run.clock.time.monotonic", lambda: now[0])
    config = load_config(config_file, ["run.checkpoint_minutes=2"])
    trainer, clock = Trainer(config, ALONE, RunFolder(config), None), Clock()
    now[0] += 119
    assert not trainer._checkpoint_due(clock)
    now[0] += 1
    assert trainer._checkpoint_due(clock)
    trainer.folder.save_last = lambda state: None
    with trainer.writer:
        trainer._save(clock)
    assert not trainer._checkpoint_due(clock)


@pytest.mark.usefixtures("no_evaluation")
def test_an_end_behind_the_checkpoint_is_the_checkpoints(begun, caplog):
    config_file, _ = begun
    caplog.set_level("INFO")
    train(config_file, "schedule.max_steps=2", resume="auto")
    said = [record.getMessage() for record in caplog.records]
    assert any("at step 3 of 3" in text for text in said) and any("done after 3 steps" in text for text in said)
