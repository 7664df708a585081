"""What a run offers works with every family, and with losses that change its parts: in-process, on a tiny model."""

import json
import math

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import eval as evaluation
import scripts.check_dataset as check_dataset
import scripts.predict as prediction
import train as training
from engine import load_config, load_detector
from engine.run.checkpoint import load_checkpoint
from engine.run.run_folder import RunFolder
from engine.tools.export import META, ExportError, export_torch

PARTS = {"loss", "loss_cls", "loss_loc"}
FIRST_FCOS = ["model.center_radius=null", "model.centerness=cls", "model.distances=exp", "loss.box_loss=log_iou"]
FASTER_RCNN = ["model.family=faster_rcnn", "model.fc_channels=32", "model.anchor_base_scale=4.0"]
HEAD_PARTS = {"loss", *(f"{part}_{head}" for part in ("loss_cls", "loss_loc") for head in ("rpn", "roi"))}
VARIANTS = {
    "retinanet": ([], PARTS),
    "retinanet dr": (["loss.name=dr"], PARTS),
    "retinanet freeanchor": (["loss.name=freeanchor"], {"loss", "loss_positive", "loss_negative"}),
    "centernet": (["model.family=centernet"], PARTS | {"loss_pull", "loss_push"}),
    "fcos": (["model.family=fcos"], PARTS | {"loss_centerness"}),
    "fcos as first published": (["model.family=fcos", *FIRST_FCOS], PARTS | {"loss_centerness"}),
    "fcos alrp": (["model.family=fcos", "loss.name=alrp"], PARTS),
    "fcos ap": (["model.family=fcos", "loss.name=ap"], PARTS | {"loss_centerness"}),
    "fcos rs": (["model.family=fcos", "loss.name=rs"], PARTS),
    "faster_rcnn": ([*FASTER_RCNN, "loss.name=ce"], HEAD_PARTS),
    "faster_rcnn giou": ([*FASTER_RCNN, "loss.name=ce", "loss.box_loss=giou", "loss.box_weight=10"], HEAD_PARTS),
    "faster_rcnn alrp": ([*FASTER_RCNN, "loss.name=alrp"], HEAD_PARTS),
    "faster_rcnn rs": ([*FASTER_RCNN, "loss.name=rs"], HEAD_PARTS),
}


FAST = "fcos"  # RetinaNet has tests of its own for all of this
marked = [pytest.param(name, marks=() if name == FAST else pytest.mark.slow) for name in VARIANTS]


@pytest.fixture(scope="module", params=marked)
def variant(request):
    """Overrides, and the parts that the loss has."""
    return VARIANTS[request.param]


@pytest.fixture(scope="module")
def run(variant, tmp_path_factory, write_config):
    """A diagnosed run of two steps and an evaluation: its folder, configuration, file of that and overrides."""
    config_file = write_config(tmp_path_factory.mktemp("family"))
    overrides = [*variant[0], "schedule.epochs=1", "data.batch_size=6", "run.diagnose=true", "schedule.milestones=[]"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["train.py", "--config", str(config_file), *overrides])
        assert training.main() == 0
    config = load_config(config_file, overrides)
    return RunFolder(config), config, config_file, overrides


def test_curves_and_diagnosis(run, variant):
    folder, config, parts = *run[:2], variant[1]
    events = EventAccumulator(str(folder.path)).Reload()
    tags = events.Tags()["scalars"]
    assert {f"train/{part}" for part in parts} == {tag for tag in tags if tag.startswith("train/loss")}
    for part in parts:
        values = [point.value for point in events.Scalars(f"train/{part}")]
        assert len(values) == 2 and all(map(math.isfinite, values))
    heads = ("_rpn", "_roi") if parts == HEAD_PARTS else ("",)
    for head in heads:
        assert (f"train/self_balance{head}" in tags) == (config.loss.balance_period(1) is not None)
    records = [json.loads(line) for line in folder.diagnosis.read_text().splitlines()]
    record = [line for line in records if "loss" in line][-1]
    assert record["num_positives"] > 0 and record["precision"] > 0 and record["num_negatives"] > 1000
    assert 0 < record["update_ratio"] < 1 and "train/update_ratio" in tags
    if config.model.family != "centernet":  # it has one level, and keypoints in place of matched boxes
        assert record["num_positives"] == sum(record["positives_per_level"])
        assert "train_diagnosis/positives_P3" in tags
        assert record["matched_iou"] is not None
    assert ("anchor_iou" in record) == (config.model.family in ("retinanet", "faster_rcnn"))
    assert folder.metrics()[-1]["AR100"] >= 0


@pytest.mark.usefixtures("no_evaluation")
def test_resumes_bit_for_bit(run, call, tmp_path):
    folder, _, config_file, overrides = run
    again = [*overrides, f"run.dir={tmp_path}"]
    assert call(training, "--config", config_file, *again, "schedule.max_steps=1") == 0
    assert call(training, "--config", config_file, *again, "--resume", "auto") == 0
    resumed, straight = load_checkpoint(RunFolder(load_config(config_file, again)).last), load_checkpoint(folder.last)
    assert resumed["step"] == straight["step"] == 2
    assert all(torch.equal(resumed["model"][name], value) for name, value in straight["model"].items())


def test_evaluates_with_test_time_augmentation_and_reports(run, call, tmp_path):
    views = ["short_side=64", "long_side=64", "flip=true", "extra_short_sides=[96]"]
    files = {"--json": "metrics.json", "--detections": "d.json", "--report": "report"}
    arguments = [word for option, name in files.items() for word in (option, tmp_path / name)]
    arguments += [f"evaluation.{view}" for view in views]
    assert not call(evaluation, "--ckpt", run[0].last, *arguments)
    assert 0 <= json.loads((tmp_path / "metrics.json").read_text())["AR100"] <= 1
    assert json.loads((tmp_path / "d.json").read_text())
    assert (tmp_path / "report/index.html").stat().st_size > 1000


def test_predicts(run, call, tmp_path):
    Image.effect_noise((90, 60), 80).convert("RGB").save(tmp_path / "image.png")
    image, output = tmp_path / "image.png", tmp_path / "out"
    assert not call(prediction, "--ckpt", run[0].last, "--output", output, "--threshold", "0", image)
    assert 0 < len(json.loads((output / "detections.json").read_text())) <= 100


@pytest.mark.slow  # RetinaNet is exported in test_export.py
def test_an_exported_program_gives_the_same_detections(run, tmp_path):
    detector, info = load_detector(run[0].last)
    if run[1].model.family in ("faster_rcnn", "centernet"):
        with pytest.raises(ExportError, match=r"^a (FasterRCNN|CenterNet) cannot be exported; use the checkpoint$"):
            export_torch(detector, info, tmp_path / "detector.pt2")
        assert not list(tmp_path.iterdir())
        return
    export_torch(detector, info, tmp_path / "detector.pt2")
    extra = {META: ""}
    program = torch.export.load(tmp_path / "detector.pt2", extra_files=extra).module()
    meta = json.loads(extra[META])
    images = torch.rand(3, 3, 160, 224, generator=torch.Generator().manual_seed(1))
    sizes = [(160, 220), (150, 224), (160, 224)]
    with torch.no_grad():
        expected = detector(images, image_sizes=sizes)
    found = zip(*program(images, torch.tensor(sizes)), strict=True)
    assert meta["family"] == run[1].model.family
    for (boxes, scores, labels), other in zip(found, expected, strict=True):
        count = len(other["scores"])
        assert count > 20 and (labels[count:] == -1).all()
        torch.testing.assert_close(scores[:count], other["scores"], rtol=1e-5, atol=1e-6)
        # scores of an untrained network lie so close that rounding may exchange neighbours
        same = (scores[:count, None] - other["scores"]).abs() < 1e-5
        same &= (labels[:count, None] == other["labels"]) & ((boxes[:count, None] - other["boxes"]).abs() < 1e-2).all(2)
        assert (same.any(0) | (other["scores"] < other["scores"][-1] + 1e-5)).all()


def test_dry_run_and_check_of_the_data(run, call, capsys):
    *_, config_file, overrides = run
    assert call(training, "--config", config_file, *overrides, "--dry-run") == 0
    assert "12 training, 6 validation" in capsys.readouterr().out
    call(check_dataset, "--config", config_file, *overrides)
    assert "objects" in capsys.readouterr().out
