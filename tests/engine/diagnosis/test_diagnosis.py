"""Diagnosis of runs: sick ones are named, a healthy one is not, and the run itself does not change."""

import json
import logging
import re

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import scripts.plot_diagnosis as script
from data import CocoDetection
from engine import load_config
from engine.diagnosis.figure import PANELS, diagnosis_figure, read_run
from engine.reporting.tensorboard import DIAGNOSIS_LAYOUT
from engine.run.checkpoint import load_checkpoint
from engine.run.config import ConfigError
from engine.run.distributed import Processes
from engine.run.run_folder import RunFolder
from engine.training.trainer import Trainer

ALONE = Processes(0, 1, torch.device("cpu"))
# anchors for objects of the small images, twelve steps over two epochs and more, and one evaluation at the end, which
# would call so short a training too short
SHORT = (
    "run.diagnose=true",
    "model.anchor_base_scale=1.0",
    "schedule.epochs=4",
    "schedule.milestones=[]",
    "evaluation.every=9",
)


def train(config_file, *overrides, resume=None) -> RunFolder:
    config = load_config(config_file, [*SHORT, *overrides])
    folder = RunFolder(config)
    trainer = Trainer(config, ALONE, folder, folder.find_checkpoint(resume, False))
    assert trainer.fit() == 0
    return folder


def lines(folder: RunFolder) -> list[dict]:
    return [json.loads(line) for line in folder.diagnosis.read_text().splitlines()]


def causes(folder: RunFolder) -> dict[str, str]:
    return {line["cause"]: line["message"] for line in lines(folder) if "cause" in line}


def steps(folder: RunFolder) -> list[int]:
    return [line["step"] for line in lines(folder) if "loss" in line]


@pytest.fixture(scope="module")
def healthy(tmp_path_factory, write_config):
    """Folder and console lines of a healthy run."""
    handler = logging.Handler()
    said = []
    handler.emit = lambda record: said.append((record.levelname, record.getMessage()))
    logging.getLogger("engine").addHandler(handler)
    logging.getLogger("engine").setLevel(logging.INFO)
    folder = train(write_config(tmp_path_factory.mktemp("healthy")))
    logging.getLogger("engine").removeHandler(handler)
    return folder, said


def test_too_short_a_training_is_named_at_its_end(config_file):
    folder = train(config_file, "schedule.max_steps=3", "evaluation.every=1", "evaluation.train_images=6")
    assert causes(folder).keys() == {"balance_stuck", "undertrained"}
    assert f"{folder.metrics()[-1]['train_AP']:.3f} on training images" in causes(folder)["undertrained"]


def test_it_is_named_without_a_logged_step_too(config_file):
    short = ("schedule.max_steps=3", "evaluation.every=1", "evaluation.train_images=6", "run.log_every=100")
    folder = train(config_file, *short)
    assert "undertrained" in causes(folder) and steps(folder) == []


def test_a_healthy_run_is_recorded_without_a_warning(healthy):
    folder, said = healthy
    assert causes(folder) == {}
    assert [text for level, text in said if level == "WARNING"] == []
    assert steps(folder) == list(range(1, 13))
    content = lines(folder)
    assert content[0]["config"]["run"]["diagnose"] is True
    assert content[1]["objects"] > 0 and content[1]["missed_by_anchors"]["all"] < 0.5
    record = content[-1]
    assert sum(record["positives_per_level"]) == record["num_positives"] > 0
    assert 0 < record["precision"] < 1 and 0 < record["matched_iou"] < 1
    (summary,) = [text for _, text in said if text.startswith("diagnosis at step 12")]
    assert "none seen" in summary and "P3" in summary


def test_tensorboard_has_the_pages_of_the_diagnosis(healthy):
    events = EventAccumulator(str(healthy[0].path), size_guidance={"histograms": 0}).Reload()
    tags = {tag for charts in DIAGNOSIS_LAYOUT.values() for tags in charts.values() for tag in tags}
    shown = events.Tags()["scalars"]
    assert all(any(re.fullmatch(tag, name) for name in shown) for tag in tags)
    for name in ("logit_positive", "logit_negative", "log10_rank_positive", "matched_iou"):
        histograms = events.Histograms(f"train_diagnosis/{name}")
        assert [histogram.step for histogram in histograms] == [1, 6, 11]
        assert sum(histograms[0].histogram_value.bucket) == histograms[0].histogram_value.num > 0


def test_a_figure_has_a_line_for_each_run_in_each_panel(healthy, tmp_path):
    run = read_run(healthy[0].path)
    figure = diagnosis_figure([run._replace(name="one"), run._replace(name="two")])
    assert [axes.get_title(loc="left") for axes in figure.axes] == [title for title, *_ in PANELS]
    precision = [record["precision"] for record in run.records]
    for line in figure.axes[0].get_lines():
        assert line.get_xdata().tolist() == list(range(1, 13))
        assert line.get_ydata()[0] == precision[0] and line.get_ydata()[4] == sorted(precision[:5])[2]
    of_heads = [{"step": 1, "self_balance_rpn": 9.0, "self_balance_roi": 2.0}]
    lines = diagnosis_figure([run._replace(records=of_heads)]).axes[-1].get_lines()
    assert [(line.get_ydata()[-1], line.get_linestyle()) for line in lines if len(line.get_ydata())] == [
        (2, "-"),
        (9, "--"),
    ]
    with pytest.raises(ConfigError, match=r"diagnosis\.jsonl: no diagnosis; train with run\.diagnose=true"):
        read_run(tmp_path)
    (tmp_path / "diagnosis.jsonl").write_text('{"step": 0, "config": {}}\n{"step": 1, "loss": 2.0}\n')
    with pytest.raises(ConfigError, match=r"diagnosis\.jsonl: damaged, it names no loss"):
        read_run(tmp_path)


def test_only_a_named_picture_replaces_a_file(healthy, tmp_path, monkeypatch, capsys, call):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(script, "log_to_console", lambda is_main: None)  # it would outlive the test
    assert call(script, healthy[0].path) == 0
    picture = tmp_path / "diagnosis.png"
    picture.write_text("mine")
    with pytest.raises(SystemExit) as stop:
        call(script, healthy[0].path)
    assert stop.value.code == 2 and "error: diagnosis.png: exists; name another file" in capsys.readouterr().err
    assert picture.read_text() == "mine"
    assert call(script, healthy[0].path, "--output", "diagnosis.png") == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_training_result_is_the_same_to_the_bit(config_file, healthy):
    watched = healthy[0]
    off = train(config_file, "run.diagnose=false")
    assert not off.diagnosis.exists()
    one, other = (load_checkpoint(folder.last) for folder in (watched, off))
    assert all(torch.equal(value, other["model"][name]) for name, value in one["model"].items())
    assert watched.metrics() == off.metrics()


@pytest.mark.usefixtures("no_evaluation")
def test_anchors_that_are_too_large_are_named_before_the_first_step(config_file, caplog):
    folder = train(config_file, "model.anchor_base_scale=16.0", "schedule.max_steps=4")
    (cause,) = found = causes(folder)
    assert cause == "anchors"
    assert "model.anchor_base_scale to about" in found[cause] and "now 16" in found[cause]
    assert next(line["step"] for line in lines(folder) if "cause" in line) == 0
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == [f"diagnosis (anchors): {found[cause]}"]


def test_a_run_without_objects_is_named_and_goes_on(config_file, shapes, tmp_path, monkeypatch):
    monkeypatch.setattr(CocoDetection, "has_objects", True)  # else refused; crops may leave as little
    root = tmp_path / "empty"
    (root / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        (root / split).symlink_to(shapes / split)
        content = json.loads((shapes / "annotations" / f"instances_{split}.json").read_text())
        content["annotations"] = [] if split == "train" else content["annotations"]
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    folder = train(config_file, f"data.root={root}", "schedule.max_steps=10", "data.accumulate=2")
    assert set(causes(folder)) == {"no_positives", "balance_stuck"}
    assert [line["precision"] for line in lines(folder) if "loss" in line] == [None] * 10


@pytest.mark.usefixtures("no_evaluation")
def test_twenty_times_the_rate_is_named_once_and_the_file_survives_interruption(config_file):
    sick = ("optimizer.lr=0.2", "run.checkpoint_every=10")
    folder = train(config_file, *sick, "schedule.max_steps=11")
    (cause,) = found = causes(folder)
    assert cause == "learning_rate" and "now 0.2" in found[cause]
    checkpoint = folder.last.read_bytes()
    before = folder.diagnosis.read_text()
    train(config_file, *sick, resume="auto")
    folder.last.write_bytes(checkpoint)  # as if it had been killed after step 12, in the middle of a line
    with folder.diagnosis.open("a") as file:
        file.write('{"step": 13, "lo')
    train(config_file, *sick, resume="auto")
    assert folder.diagnosis.read_text().startswith(before)
    assert steps(folder) == list(range(1, 13))
    assert [line.get("cause") for line in lines(folder) if "cause" in line] == ["learning_rate"]
    assert sum("config" in line for line in lines(folder)) == 1


@pytest.mark.usefixtures("no_evaluation")
def test_overwriting_a_run_begins_a_new_file(config_file):
    folder = train(config_file, "schedule.max_steps=2", "schedule.epochs=4")
    config = load_config(config_file, SHORT)
    folder.begin(config, 0, 0)
    assert not folder.diagnosis.exists()
