"""train.py and eval.py called wrongly: one `error:` line that says what, where and the remedy; exit status 2."""

import json
import shutil

import pytest

from engine.run.checkpoint import load_checkpoint, save_checkpoint


@pytest.fixture(scope="module")
def nothing(tmp_path_factory):
    return tmp_path_factory.mktemp("nothing")


def fails(result, *expected, status=2):
    assert result.returncode == status, result.stderr
    assert "Traceback" not in result.stderr, result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, result.stderr
    for part in expected:
        assert part in lines[0]


def test_missing_config_and_unknown_options(here, command, nothing):
    fails(command("train.py", "--config", nothing / "gone.yaml"), "gone.yaml", "configs/")
    fails(here("train.py"), "--config")
    fails(here("train.py", "--config", "configs/quickstart.yaml", "--fast"), "--fast")


def test_data_that_is_not_there(here, config_file, nothing):
    fails(here("train.py", "--config", config_file, f"data.root={nothing}/coco"), f"{nothing}/coco", "cocodataset.org")
    fails(here("train.py", "--config", config_file, "data.val_split=none"), "instances_none.json", "train, val")


@pytest.mark.parametrize("crowd", [False, True])
def test_a_training_split_without_objects_is_refused(here, config_file, shapes, tmp_path, crowd):
    root = tmp_path / "data"
    shutil.copytree(shapes, root)
    path = root / "annotations/instances_train.json"
    document = json.loads(path.read_text())
    marked = [annotation | {"iscrowd": 1} for annotation in document["annotations"]]
    path.write_text(json.dumps(document | {"annotations": marked if crowd else []}))
    result = here("train.py", "--config", config_file, f"data.root={root}")
    fails(result, "instances_train.json", "no object in 12 images")


def test_annotations_that_are_not_coco(here, config_file, tmp_path):
    root = tmp_path / "data"
    (root / "annotations").mkdir(parents=True)
    (root / "train").mkdir()
    file = root / "annotations" / "instances_train.json"
    for text in ("{", "[]", json.dumps({"images": []})):
        file.write_text(text)
        fails(here("train.py", "--config", config_file, f"data.root={root}"), str(file))


def test_only_training_generates_data_and_only_into_its_own_folder(here, config_file, write_checkpoint, tmp_path):
    mine = tmp_path / "my photos"
    (mine / "train").mkdir(parents=True)
    (mine / "train/000000.jpg").write_text("holiday")
    checkpoint = write_checkpoint(tmp_path, ["cat"])
    state = load_checkpoint(checkpoint)
    generate = {"train": 4, "val": 2, "test": 1, "image_size": 64, "seed": 3}
    state["config"]["data"] |= {"root": str(mine), "generate": generate}
    save_checkpoint(checkpoint, state)
    line = f"python scripts/make_shapes.py --output '{mine}' --train 4 --val 2 --test 0 --size 64 --seed 3"
    fails(here("eval.py", "--ckpt", checkpoint), line)
    train = ("train.py", "--config", config_file, f"data.generate={json.dumps(generate)}", "--dry-run")
    fails(here(*train, f"data.root={mine}"), str(mine), "not generated data", "another folder")
    assert [path.name for path in mine.rglob("*")] == ["train", "000000.jpg"]
    assert (mine / "train/000000.jpg").read_text() == "holiday"
    result = here(*train, f"data.root={tmp_path / 'new'}")
    assert result.returncode == 0, result.stderr


def test_images_outside_of_the_data_are_refused_on_demand(here, config_file, shapes, tmp_path):
    root = tmp_path / "linked"
    root.mkdir()
    (root / "annotations").mkdir()
    for split in ("train", "val"):
        (root / split).mkdir()
        document = json.loads((shapes / f"annotations/instances_{split}.json").read_text())
        for image in document["images"]:
            image["file_name"] = str(shapes / split / image["file_name"])
        (root / f"annotations/instances_{split}.json").write_text(json.dumps(document))
    train = ("train.py", "--config", config_file, f"data.root={root}", "--dry-run")
    result = here(*train)
    assert result.returncode == 0, result.stderr
    assert f"12 images lie outside of it, in {shapes}/train" in result.stderr
    fails(here(*train, "--inside-only"), f"{root}: 12 images lie outside", "--inside-only")


def test_batches_that_do_not_fit(here, config_file):
    fails(here("train.py", "--config", config_file, "data.batch_size=64"), "data.batch_size", "12")
    fails(here("train.py", "--config", config_file, "data.accumulate=3"), "data.batch_size", "data.accumulate")


def test_an_existing_run_is_not_touched(here, config_file, tmp_path):
    run = tmp_path / "runs" / "tiny"
    run.mkdir(parents=True)
    (run / "metrics.jsonl").write_text("")
    fails(here("train.py", "--config", config_file), str(run), "--resume auto", "--overwrite")
    fails(here("train.py", "--config", config_file, "--resume", "auto", "--overwrite"), "one of them")
    assert (run / "metrics.jsonl").read_text() == ""


def test_dry_run_writes_nothing(here, config_file, tmp_path):
    result = here("train.py", "--config", config_file, "--dry-run")
    assert result.returncode == 0, result.stderr
    assert "loss" in result.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.usefixtures("no_evaluation")
def test_a_changed_recipe_does_not_resume(here, config_file):
    start = ("train.py", "--config", config_file, "schedule.max_steps=1")
    assert here(*start).returncode == 0
    resume = ("train.py", "--config", config_file, "--resume", "auto")
    fails(here(*resume, "optimizer.lr=0.5"), "optimizer.lr", "0.5", "0.01")
    assert here(*resume, "schedule.max_steps=2", "data.workers=1", "evaluation.every=2").returncode == 0


def test_checkpoints_that_cannot_be_used(here, tmp_path, shapes):
    fails(here("eval.py", "--ckpt", tmp_path / "gone.pt"), "gone.pt", "best.pt")
    (tmp_path / "empty.pt").write_bytes(b"")
    fails(here("eval.py", "--ckpt", tmp_path / "empty.pt"), "empty.pt", "is empty")
    other = {"model": {}, "config": {"data": {"root": str(shapes), "val_split": "val"}}, "epoch": 1, "step": 1}
    save_checkpoint(tmp_path / "other.pt", other | {"classes": ["cat"]})
    fails(here("eval.py", "--ckpt", tmp_path / "other.pt"), "other.pt", "trained on 'cat', and", "instances_val.json")
