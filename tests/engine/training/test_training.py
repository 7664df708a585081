"""Training end to end on small generated data: the loop, its files, and eval.py's agreement."""

import json
import re

import pytest
import torch
import yaml
from in_process import curve, train
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from data import CocoDetection, DatasetError
from engine import load_detector
from engine.reporting.tensorboard import LAYOUT
from engine.run.checkpoint import load_checkpoint


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
    status, folder = train(write_config(tmp_path), f"data.root={root}", "schedule.max_steps=4")  # evaluates after 3 too
    assert status == 0
    assert [load_checkpoint(path)["step"] for path in (folder.last, folder.best)] == [4, 4]
    assert len([text for text in caplog.messages if "nothing to compare checkpoints by" in text]) == 1
    training = root / "annotations/instances_train.json"
    training.write_text(json.dumps(json.loads(training.read_text()) | {"annotations": []}))
    with pytest.raises(DatasetError, match="no object in 12 images, so nothing to train on"):
        train(write_config(tmp_path), f"data.root={root}", "run.name=other")


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


@pytest.mark.usefixtures("no_evaluation")
def test_the_balance_weight_can_move_every_few_steps(config_file):
    _, folder = train(config_file, "loss.balance_every=2")
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


def test_eval_repeats_the_evaluation_of_training(finished, here, tmp_path):
    out, detections = tmp_path / "metrics.json", tmp_path / "detections.json"
    result = here("eval.py", "--ckpt", finished.last, "--json", out, "--detections", detections)
    assert result.returncode == 0, result.stderr
    assert "oLRP" in result.stdout
    written, during = json.loads(out.read_text()), finished.metrics()[-1]
    assert during["AR100"] > 0
    for name, value in during.items():
        if name not in ("epoch", "step", "train_AP"):
            assert written[name] == pytest.approx(value, abs=1e-9), name
    assert set(json.loads(detections.read_text())[0]) == {"image_id", "category_id", "bbox", "score"}


@pytest.mark.parametrize("loss", ["ap", "focal"])
@pytest.mark.usefixtures("no_evaluation")
def test_the_baselines_train(config_file, loss):
    status, folder = train(config_file, f"loss.name={loss}", "schedule.max_steps=2")
    assert status == 0
    assert all(torch.tensor(value).isfinite() for _, value in curve(folder, "train/loss"))
    assert "objective.loss.balance.weight" not in load_checkpoint(folder.last)["model"]


@pytest.mark.usefixtures("no_evaluation")
def test_micro_batches_share_one_step(config_file):
    _, folder = train(config_file, "data.accumulate=2", "schedule.max_steps=2")
    assert [step for step, _ in curve(folder, "train/loss")] == [1, 2]


@pytest.mark.usefixtures("no_evaluation")
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


@pytest.mark.usefixtures("no_evaluation")
def test_files_in_memory_change_nothing_but_where_they_are_read(config_file, caplog):
    caplog.set_level("INFO")
    weights = []
    for name, cache in (("plain", "false"), ("cached", "true")):
        more = ("schedule.max_steps=2", "run.name=" + name, "evaluation.every=9")
        _, folder = train(config_file, *more, "data.cache=" + cache)
        weights.append(load_checkpoint(folder.last)["model"])
    assert caplog.text.count("data.cache: 12 files, 0.00 GB of memory, times 1 process a host") == 1
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_decoded_images_in_a_folder_change_nothing_and_are_decoded_once(config_file, shapes, tmp_path, monkeypatch):
    weights = []
    for name in ("plain", "first", "second"):
        if name != "plain":
            monkeypatch.setenv("ALRP_PIXELS", str(tmp_path / "pixels"))
        if name == "second":
            monkeypatch.setattr("data.pixel_folder.read_image", None)
        _, folder = train(config_file, "schedule.max_steps=1", "run.name=" + name)
        weights.append(load_checkpoint(folder.last)["model"])
        assert folder.metrics()[-1]["step"] == 1
    assert all(torch.equal(value, other[name]) for other in weights[1:] for name, value in weights[0].items())
    images = [path for split in ("train", "val") for path in (shapes / split).iterdir()]
    assert len(list((tmp_path / "pixels").iterdir())) == len(images)
