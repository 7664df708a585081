"""Training end to end on small generated data: the loop, its files, resuming, and eval.py's agreement."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from data import CocoDetection, DatasetError
from engine import load_config, load_detector
from engine.reporting.tensorboard import LAYOUT
from engine.run.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from engine.run.distributed import Processes
from engine.run.run_folder import RunFolder
from engine.training.train_step import TrainingError, TrainStep
from engine.training.trainer import Trainer

ALONE = Processes(0, 1, torch.device("cpu"))


def train(config_file, *overrides, resume=None, overwrite=False) -> tuple[int, RunFolder]:
    config = load_config(config_file, overrides)
    folder = RunFolder(config)
    state = folder.find_checkpoint(resume, overwrite)
    return Trainer(config, ALONE, folder, state).fit(), folder


def curve(folder: RunFolder, tag: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder.path)).Reload()
    return [(point.step, point.value) for point in events.Scalars(tag)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, write_config):
    """A run of two epochs that several tests look at."""
    status, folder = train(write_config(tmp_path_factory.mktemp("finished")), "optimizer.ema_decay=0.9")
    assert status == 0
    return folder


def test_a_run_leaves_its_files(finished):
    assert {path.name for path in finished.path.iterdir() if "tfevents" not in path.name} == {
        "config.yaml",
        "metrics.jsonl",
        "training.jsonl",
        "provenance.jsonl",
        "log.txt",
        "train_batch.png",
        "checkpoints",
    }
    config = yaml.safe_load((finished.path / "config.yaml").read_text())
    assert config["optimizer"]["ema_decay"] == 0.9
    records = finished.metrics()
    assert [(record["epoch"], record["step"]) for record in records] == [(1, 3), (2, 6)]
    assert {"AP", "AP50", "AR100", "oLRP", "oLRP_loc", "oLRP_fp", "oLRP_fn", "oLRP_s"} <= records[0].keys()
    for path in (finished.last, finished.best):
        state = load_checkpoint(path)
        assert {"model", "ema", "config", "epoch", "step", "classes", "thresholds"} <= state.keys()
    assert load_checkpoint(finished.last)["step"] == 6


def test_without_an_object_to_find_the_newest_checkpoint_is_the_best(tmp_path, write_config, shapes, caplog):
    root = tmp_path / "data"
    (root / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        (root / split).symlink_to(shapes / split)
        document = json.loads((shapes / f"annotations/instances_{split}.json").read_text())
        document["annotations"] = document["annotations"] if split == "train" else []
        (root / f"annotations/instances_{split}.json").write_text(json.dumps(document))
    status, folder = train(write_config(tmp_path), f"data.root={root}")
    assert status == 0
    assert [load_checkpoint(path)["step"] for path in (folder.last, folder.best)] == [6, 6]
    assert len([text for text in caplog.messages if "nothing to compare checkpoints by" in text]) == 1
    training = root / "annotations/instances_train.json"
    training.write_text(json.dumps(json.loads(training.read_text()) | {"annotations": []}))
    with pytest.raises(DatasetError, match="no object in 12 images, so nothing to train on"):
        train(write_config(tmp_path), f"data.root={root}", "run.name=other")


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


def test_tensorboard_has_a_point_for_every_step_and_evaluation(finished):
    events = EventAccumulator(str(finished.path), size_guidance={"images": 0}).Reload()
    scalars, steps = set(events.Tags()["scalars"]), [1, 2, 3, 4, 5, 6]
    for name in ("loss", "loss_cls", "loss_loc", "self_balance", "lr", "grad_norm", "num_positives"):
        assert [point.step for point in events.Scalars(f"train/{name}")] == steps, name
    expected = {"train/num_relevant_negatives", "perf/images_per_second", "perf/data_wait", "perf/memory_gb"}
    assert expected <= scalars
    assert {"eval/AP", "eval/oLRP"} <= scalars
    in_charts = {tag for charts in LAYOUT.values() for tags in charts.values() for tag in tags}
    empty = {tag for tag in in_charts if not any(re.fullmatch(tag, name) for name in scalars)}
    assert empty <= {"eval/APm", "eval/APl"}  # the data has small objects only
    for tag in ("eval/examples/0", "curves/precision_recall", "curves/lrp"):
        assert [image.step for image in events.Images(tag)] == [3, 6], tag


def test_the_balance_theorem_holds_in_the_logged_gradients(finished):
    positive = dict(curve(finished, "train/grad_mass_positive"))
    negative = dict(curve(finished, "train/grad_mass_negative"))
    assert min(positive.values()) > 0
    for step, mass in positive.items():
        assert negative[step] == pytest.approx(mass, rel=1e-4)


def test_the_balance_weight_starts_at_50_and_moves_after_the_epoch(finished):
    weights = [value for _, value in curve(finished, "train/self_balance")]
    assert weights[:3] == [50, 50, 50]
    cls = [value for _, value in curve(finished, "train/loss_cls")[:3]]
    loc = [value for _, value in curve(finished, "train/loss_loc")[:3]]
    assert weights[3:] == pytest.approx([(sum(cls) + sum(loc)) / sum(loc)] * 3, rel=1e-5)


def test_the_balance_weight_can_move_every_few_steps(config_file):
    _, folder = train(config_file, "loss.balance_every=2", "evaluation.every=2")
    weights = [value for _, value in curve(folder, "train/self_balance")]
    cls, loc = ([value for _, value in curve(folder, f"train/loss_{part}")] for part in ("cls", "loc"))
    expected = [(sum(cls[i : i + 2]) + sum(loc[i : i + 2])) / sum(loc[i : i + 2]) for i in (0, 2)]
    assert weights[:2] == [50, 50]
    assert weights[2:] == pytest.approx([expected[0]] * 2 + [expected[1]] * 2, rel=1e-5)


def test_load_detector_gives_the_evaluated_weights_and_names(finished, shapes):
    detector, info = load_detector(finished.best)
    dataset = CocoDetection(shapes, "val")
    assert info.classes == dataset.class_names
    assert len(info.thresholds) == len(info.classes)
    assert info.config.data.image_size == 64
    assert not detector.training
    averaged = load_checkpoint(finished.best)["ema"]
    assert all(torch.equal(value, averaged[name]) for name, value in detector.state_dict().items())


def test_eval_repeats_the_evaluation_of_training(finished, command, tmp_path):
    out, detections = tmp_path / "metrics.json", tmp_path / "detections.json"
    result = command("eval.py", "--ckpt", finished.last, "--json", out, "--detections", detections)
    assert result.returncode == 0, result.stderr
    assert "oLRP" in result.stdout
    written, during = json.loads(out.read_text()), finished.metrics()[-1]
    assert during["AR100"] > 0
    for name, value in during.items():
        if name not in ("epoch", "step", "train_AP"):
            assert written[name] == pytest.approx(value, abs=1e-9), name
    assert set(json.loads(detections.read_text())[0]) == {"image_id", "category_id", "bbox", "score"}


def test_stopping_anywhere_and_resuming_changes_nothing(config_file, finished):
    status, folder = train(config_file, "schedule.max_steps=2", "optimizer.ema_decay=0.9")
    assert status == 0
    assert folder.metrics()[-1]["step"] == 2
    train(config_file, "schedule.max_steps=5", "optimizer.ema_decay=0.9", resume="auto")
    train(config_file, "optimizer.ema_decay=0.9", resume="auto")
    resumed, whole = load_checkpoint(folder.last), load_checkpoint(finished.last)
    for part in ("model", "ema"):
        assert all(torch.equal(resumed[part][name], value) for name, value in whole[part].items())
    for index, state in whole["optimizer"]["state"].items():
        assert torch.equal(resumed["optimizer"]["state"][index]["momentum_buffer"], state["momentum_buffer"])
    assert curve(folder, "train/loss") == curve(finished, "train/loss")
    assert folder.metrics()[-1] == finished.metrics()[-1]


def test_resume_after_a_later_crash_drops_what_came_after_the_checkpoint(config_file):
    _, folder = train(config_file, "schedule.max_steps=3")
    early = folder.last.read_bytes()
    train(config_file, resume="auto")
    folder.last.write_bytes(early)
    train(config_file, resume="auto")
    assert [record["step"] for record in folder.metrics()] == [3, 6]
    assert [step for step, _ in curve(folder, "train/loss")] == [1, 2, 3, 4, 5, 6]


def test_resume_auto_starts_afresh_without_a_checkpoint_and_ends_at_once_when_finished(config_file, command):
    _, folder = train(config_file, "schedule.max_steps=1", resume="auto")
    folder.last.unlink()
    folder.best.unlink()
    train(config_file, "schedule.max_steps=1", resume="auto")
    before = folder.last.stat().st_mtime_ns
    result = command("train.py", "--config", config_file, "--resume", "auto", "schedule.max_steps=1")
    assert result.returncode == 0
    assert "finished" in result.stdout
    assert folder.last.stat().st_mtime_ns == before


def test_an_evaluation_that_was_interrupted_is_made_up_for(config_file):
    _, folder = train(config_file, "schedule.max_steps=3")
    state = load_checkpoint(folder.last)
    save_checkpoint(folder.last, state | {"evaluated_step": 0, "thresholds": None})
    train(config_file, "schedule.max_steps=3", resume="auto")
    assert [record["step"] for record in folder.metrics()] == [3]
    assert load_checkpoint(folder.last)["thresholds"] == state["thresholds"]


@pytest.mark.parametrize("loss", ["ap", "focal"])
def test_the_baselines_train(config_file, loss):
    status, folder = train(config_file, f"loss.name={loss}", "schedule.max_steps=2")
    assert status == 0
    assert all(torch.tensor(value).isfinite() for _, value in curve(folder, "train/loss"))
    assert "objective.loss.balance.weight" not in load_checkpoint(folder.last)["model"]


def test_micro_batches_share_one_step(config_file):
    _, folder = train(config_file, "data.accumulate=2", "schedule.max_steps=2")
    assert [step for step, _ in curve(folder, "train/loss")] == [1, 2]


def test_images_without_objects_train(config_file, shapes, tmp_path):
    root = tmp_path / "empty"
    (root / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        (root / split).symlink_to(shapes / split)
        content = json.loads((shapes / "annotations" / f"instances_{split}.json").read_text())
        if split == "train":
            labelled = content["annotations"][0]["image_id"]
            content["annotations"] = [each for each in content["annotations"] if each["image_id"] == labelled]
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    status, folder = train(config_file, f"data.root={root}", "schedule.max_steps=3")
    assert status == 0
    losses = [value for _, value in curve(folder, "train/loss")]
    assert losses.count(0) == 2 and max(losses) > 0  # the batches without the one labelled image, and that with it


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


def test_skipped_steps_are_counted_over_a_resume(config_file):
    _, folder = train(config_file, "schedule.max_steps=1")
    state = load_checkpoint(folder.last)
    save_checkpoint(folder.last, state | {"skipped": 3, "skipped_in_a_row": 1})
    train(config_file, "schedule.max_steps=2", resume="auto")
    state = load_checkpoint(folder.last)
    assert (state["skipped"], state["skipped_in_a_row"]) == (3, 0)


def test_a_damaged_last_checkpoint_gives_way_to_the_one_before_it(config_file, finished, caplog):
    _, folder = train(config_file, "run.checkpoint_every=1", "schedule.max_steps=2", "optimizer.ema_decay=0.9")
    good = load_checkpoint(folder.last.with_name("last.1.pt"))
    content = bytearray(folder.last.read_bytes())
    content[len(content) // 2] ^= 1
    folder.last.write_bytes(content)
    train(config_file, "optimizer.ema_decay=0.9", resume="auto")
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


def test_an_evaluation_repeated_after_a_crash_leaves_one_point(config_file):
    _, folder = train(config_file, "schedule.max_steps=3")
    state = load_checkpoint(folder.last)
    save_checkpoint(folder.last, state | {"evaluated_step": 0, "thresholds": None})
    train(config_file, resume="auto")
    for path in folder.path.glob("events*"):  # what TensorBoard shows does not depend on its own repair
        assert len(path.read_bytes()) > 0
    everything = {"scalars": 0, "images": 0}
    events = EventAccumulator(str(folder.path), everything, purge_orphaned_data=False).Reload()
    for tag, steps in (("eval/AP", [3, 6]), ("train/loss", [1, 2, 3, 4, 5, 6])):
        assert [point.step for point in events.Scalars(tag)] == steps
    for tag in ("eval/examples/0", "curves/precision_recall", "curves/lrp"):
        assert [picture.step for picture in events.Images(tag)] == [3, 6]


def test_what_killed_writers_left_is_removed(config_file):
    _, folder = train(config_file, "schedule.max_steps=1")
    left = [folder.last.with_name(".last.pt.12345.tmp"), folder.path / ".metrics.jsonl.12345.tmp"]
    for path in left:
        path.write_bytes(b"half")
    train(config_file, "schedule.max_steps=2", resume="auto")
    assert not any(path.exists() for path in left)


def test_after_torchrun_restarts_a_run_goes_on_whatever_the_options_said(config_file):
    _, folder = train(config_file, "schedule.max_steps=1")
    assert folder.find_checkpoint(None, False, restarted=True)["step"] == 1
    assert folder.find_checkpoint("elsewhere.pt", False, restarted=True)["step"] == 1
    assert folder.find_checkpoint(None, True, restarted=False) is None  # --overwrite, killed before it began
    assert folder.find_checkpoint(None, True, restarted=True) is None
    folder.begin(load_config(config_file), 0, 0)
    assert folder.find_checkpoint(None, True, restarted=True) is None
    assert not (folder.path / "config.yaml").with_name(".to_be_replaced").exists()


def test_skipping_bad_annotations_holds_for_training_and_evaluation(config_file, shapes, tmp_path):
    root = tmp_path / "dirty"
    (root / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        (root / split).symlink_to(shapes / split)
        content = json.loads((shapes / "annotations" / f"instances_{split}.json").read_text())
        content["annotations"] += [{"id": 9999, "image_id": 1, "category_id": 1}, {"id": 9998, "image_id": -7}, 3]
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    overrides = (f"data.root={root}", "schedule.max_steps=1")
    with pytest.raises(DatasetError, match=r"'bbox' must be four numbers.*data\.on_error=skip"):
        train(config_file, *overrides)
    status, folder = train(config_file, *overrides, "data.on_error=skip")
    assert status == 0
    assert [record["step"] for record in folder.metrics()] == [1]


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


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 138)])
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


def test_files_in_memory_change_nothing_but_where_they_are_read(config_file, caplog):
    caplog.set_level("INFO")
    weights = []
    for name, cache in (("plain", "false"), ("cached", "true")):
        more = ("schedule.max_steps=2", "run.name=" + name, "evaluation.every=9")
        _, folder = train(config_file, *more, "data.cache=" + cache)
        weights.append(load_checkpoint(folder.last)["model"])
    assert caplog.text.count("data.cache: 12 files, 0.00 GB of memory, times 1 process a host") == 1
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


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
    states = [load_checkpoint(next(folder.last.parent.glob("last.2.pt"))) for folder in (plain, beside)]
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
