"""scripts/new_config.py: the values that it chooses, and what it refuses."""

import json
import runpy
import shlex
import shutil
import sys

import numpy as np
import pytest
import yaml

from data import DatasetError
from data.splits import find_splits
from engine.run.config import load_config
from engine.tools.new_config import SCRATCH, STARTED, image_sides

SCRIPT = "scripts/new_config.py"


@pytest.fixture
def write(monkeypatch, capsys, tmp_path):
    """write(arguments …) -> (exit status, configuration or None, printed errors)."""

    def run(*arguments: object, name: str = "mine.yaml"):
        output = tmp_path / name
        monkeypatch.setattr(sys, "argv", [SCRIPT, "--output", str(output), *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(SCRIPT, run_name="__main__")
        status = stop.value.code
        return status, load_config(output) if status == 0 else None, capsys.readouterr().err

    return run


def test_it_starts_from_the_released_detector(write, shapes, tmp_path):
    status, config, _ = write("--root", shapes)
    assert status == 0 and config is not None
    text = (tmp_path / "mine.yaml").read_text()
    assert yaml.safe_load(text)["model"] == {"init_from": "torchvision/retinanet_resnet50_fpn_v2"}
    assert config.data.root == str(shapes)
    assert (config.data.train_split, config.data.val_split, config.data.test_split) == ("train", "val", None)
    assert config.data.short_side == config.data.long_side == config.evaluation.long_side  # square images
    assert (config.data.batch_size, config.schedule.epochs) == (4, 100)  # 12 images: as often as it is allowed
    assert len([line for line in text.splitlines() if " # " in line]) >= 6


def test_from_scratch_the_anchors_follow_the_boxes(write, shapes):
    status, config, _ = write("--root", shapes, "--from-scratch")
    assert status == 0
    assert (config.model.init_from, config.model.weights, config.model.backbone) == (None, None, "resnet18")
    assert config.model.anchor_base_scale != 4.0


def test_a_checkpoint_brings_its_network(write, shapes, write_checkpoint, tmp_path):
    checkpoint = write_checkpoint(tmp_path, ["a", "b"])
    status, config, _ = write("--root", shapes, "--init-from", checkpoint)
    assert status == 0
    assert config.model.init_from == str(checkpoint)
    assert (config.model.fpn_channels, config.model.head_convs, config.model.norm) == (32, 1, "group")
    assert config.optimizer.lr == pytest.approx(0.01 / 2)  # half of that of the checkpoint, for batches of 4


def test_a_checkpoint_brings_the_optimizer_that_its_rate_is_for(
    write, shapes, write_checkpoint, write_config, tmp_path
):
    saved = load_config(write_config(tmp_path), ["optimizer.name=adamw", "optimizer.lr=0.001"])
    checkpoint = write_checkpoint(tmp_path, ["a", "b"], config=saved.to_dict())
    status, config, _ = write("--root", shapes, "--init-from", checkpoint)
    assert status == 0 and (config.optimizer.name, config.optimizer.lr) == ("adamw", pytest.approx(0.0005))


@pytest.mark.parametrize(
    ("overrides", "model", "loss"),
    [
        (["loss.name=dr", "model.score_thresh=0.3"], {"score_thresh": 0.3}, {"name": "dr"}),
        (["loss.delta=0.5"], {}, {"delta": 0.5}),
        (["model.family=fcos", "loss.name=focal"], {"family": "fcos"}, None),
    ],
)
def test_a_checkpoint_brings_its_loss_and_what_that_does_not_bring_itself(
    write, shapes, write_checkpoint, write_config, tmp_path, overrides, model, loss
):
    saved = load_config(write_config(tmp_path), overrides)
    checkpoint = write_checkpoint(tmp_path, ["a", "b"], config=saved.to_dict())
    status, config, _ = write("--root", shapes, "--init-from", checkpoint)
    assert status == 0
    text = yaml.safe_load((tmp_path / "mine.yaml").read_text())
    assert text.get("loss") == loss
    assert model.items() <= text["model"].items() and "prior" not in text["model"]
    assert (config.model.prior, config.model.score_thresh) == (saved.model.prior, saved.model.score_thresh)
    assert config.loss == saved.loss


def test_nothing_is_overwritten(write, shapes, tmp_path):
    (tmp_path / "mine.yaml").write_text("# mine\n")
    status, _, errors = write("--root", shapes)
    assert status == 2 and "is not overwritten; choose another --output" in errors
    assert (tmp_path / "mine.yaml").read_text() == "# mine\n"


@pytest.mark.parametrize(
    ("name", "other"), [("my conf.yaml", "my_conf.yaml"), (".hidden.yml", "hidden.yml"), ("(1).yaml", "1_.yaml")]
)
def test_a_name_that_no_run_can_have_is_refused_before_anything_is_written(write, tmp_path, name, other):
    status, _, errors = write("--root", tmp_path / "nothing", name=name)
    assert status == 2 and errors.startswith(f"error: {tmp_path / name}: ") and errors.count("\n") == 1
    assert errors.endswith(f"choose another --output, such as {tmp_path / other}\n")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_where_the_text_is_no_configuration(write, shapes, tmp_path, monkeypatch):
    monkeypatch.setattr("engine.tools.new_config.new_config", lambda root, init_from: "data: {root: 3}\n")
    status, _, errors = write("--root", shapes)
    assert status == 2 and "data.root" in errors and list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_refused_before_the_data_are_read(write, tmp_path):
    (tmp_path / "file").touch()
    status, _, errors = write("--root", tmp_path / "nothing", name="file/mine.yaml")
    assert status == 2 and "is no folder" in errors


def test_a_folder_without_validation_images_is_refused(write, shapes, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(shapes, root)
    (root / "annotations/instances_val.json").unlink()
    status, config, errors = write("--root", root)
    assert (status, config) == (2, None)
    assert errors.startswith("error: ") and "the splits there are train;" in errors
    assert "the converters" not in errors  # there is nothing to convert


@pytest.mark.parametrize("names", [["train"], ["train2017", "test"], ["all"]])
def test_the_command_that_draws_a_validation_split_works(write, shapes, tmp_path, capsys, monkeypatch, names):
    root = tmp_path / "my data"
    (root / "annotations").mkdir(parents=True)
    for name, source in zip(names, ("train", "val"), strict=False):
        shutil.copytree(shapes / source, root / name)
        shutil.copy(shapes / f"annotations/instances_{source}.json", root / f"annotations/instances_{name}.json")
    _, _, errors = write("--root", root)
    command = errors[errors.index("python ") : errors.index(" draws val")]
    _, script, *arguments = shlex.split(command)
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    runpy.run_path(script, run_name="__main__")
    _, _, errors = write("--root", f"{root}_split", "--from-scratch")
    assert find_splits(tmp_path / "my data_split")[:2] == ("train", "val"), errors
    assert load_config(tmp_path / "mine.yaml").data.root == f"{root}_split"


def test_annotations_that_cannot_be_used_are_the_reason_for_no_object(write, shapes, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(shapes, root)
    file = root / "annotations/instances_train.json"
    document = json.loads(file.read_text())
    count = len(document["annotations"])
    for record in document["annotations"]:
        record["image_id"] = str(record["image_id"])
    file.write_text(json.dumps(document))
    status, _, errors = write("--root", root)
    first = document["annotations"][0]["id"]
    assert status == 2 and errors.splitlines()[-1] == (
        f"error: {file}: no object in 12 images to train on: {count} of its entries cannot be used, the first "
        f"annotations[0] (id {first}): 'image_id' must be an integer; mend them"
    )
    file.write_text(json.dumps(document | {"annotations": []}))
    status, _, errors = write("--root", root)
    assert status == 2 and errors == f"error: {file}: no object in 12 images to train on; label some\n"


def test_splits_are_found_by_how_their_names_begin(tmp_path):
    (tmp_path / "annotations").mkdir()
    for name in ("train2017", "valid", "Testing", "extra"):
        (tmp_path / f"annotations/instances_{name}.json").touch()
    assert find_splits(tmp_path) == ("train2017", "valid", "Testing")
    with pytest.raises(DatasetError, match="there is no instances_<split>"):
        find_splits(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("plan", "size", "side", "expected"),
    [
        (STARTED, (480, 640), 80, (384, 512)),  # 64 / 80 of the image
        (STARTED, (1080, 1920), 640, (180, 320)),  # no smaller than that
        (STARTED, (3000, 4000), 40, (768, 1024)),  # no larger than that
        (STARTED, (512, 512), 22, (512, 512)),  # as it is
        (STARTED, (300, 400), 10, (600, 800)),  # twice
        (STARTED, (640, 480), 80, (384, 512)),  # upright
        (SCRATCH, (480, 640), 20, (384, 512)),  # 16 / 20 of the image
        (SCRATCH, (480, 640), 80, (240, 320)),  # no smaller than that
        (SCRATCH, (300, 400), 8, (600, 800)),  # twice
    ],
)
def test_images_are_as_large_as_their_objects_need(plan, size, side, expected):
    assert image_sides(np.array([size]), np.full(20, side), plan) == expected
