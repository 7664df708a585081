"""train.py and eval.py called wrongly: one `error:` line that says what, where and the remedy; exit status 2."""

import json

import pytest

from engine.run.checkpoint import save_checkpoint


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


def test_missing_config_and_unknown_options(command, nothing):
    fails(command("train.py", "--config", nothing / "gone.yaml"), "gone.yaml", "configs/")
    fails(command("train.py"), "--config")
    fails(command("train.py", "--config", "configs/quickstart.yaml", "--fast"), "--fast")


def test_data_that_is_not_there(command, config_file, nothing):
    fails(
        command("train.py", "--config", config_file, f"data.root={nothing}/coco"), f"{nothing}/coco", "cocodataset.org"
    )
    fails(command("train.py", "--config", config_file, "data.val_split=none"), "instances_none.json", "train, val")


def test_annotations_that_are_not_coco(command, config_file, tmp_path):
    root = tmp_path / "data"
    (root / "annotations").mkdir(parents=True)
    (root / "train").mkdir()
    file = root / "annotations" / "instances_train.json"
    for text in ("{", "[]", json.dumps({"images": []})):
        file.write_text(text)
        fails(command("train.py", "--config", config_file, f"data.root={root}"), str(file))


def test_batches_that_do_not_fit(command, config_file):
    fails(command("train.py", "--config", config_file, "data.batch_size=64"), "data.batch_size", "12")
    fails(command("train.py", "--config", config_file, "data.accumulate=3"), "data.batch_size", "data.accumulate")


def test_an_existing_run_is_not_touched(command, config_file, tmp_path):
    run = tmp_path / "runs" / "tiny"
    run.mkdir(parents=True)
    (run / "metrics.jsonl").write_text("")
    fails(command("train.py", "--config", config_file), str(run), "--resume auto", "--overwrite")
    fails(command("train.py", "--config", config_file, "--resume", "auto", "--overwrite"), "one of them")
    assert (run / "metrics.jsonl").read_text() == ""


def test_dry_run_writes_nothing(command, config_file, tmp_path):
    result = command("train.py", "--config", config_file, "--dry-run")
    assert result.returncode == 0, result.stderr
    assert "loss" in result.stderr
    assert not (tmp_path / "runs").exists()


def test_a_changed_recipe_does_not_resume(command, config_file):
    start = ("train.py", "--config", config_file, "schedule.max_steps=1")
    assert command(*start).returncode == 0
    resume = ("train.py", "--config", config_file, "--resume", "auto")
    fails(command(*resume, "optimizer.lr=0.5"), "optimizer.lr", "0.5", "0.01")
    assert command(*resume, "schedule.max_steps=2", "data.workers=1", "evaluation.every=2").returncode == 0


def test_checkpoints_that_cannot_be_used(command, tmp_path, shapes):
    fails(command("eval.py", "--ckpt", tmp_path / "gone.pt"), "gone.pt", "best.pt")
    (tmp_path / "empty.pt").write_bytes(b"")
    fails(command("eval.py", "--ckpt", tmp_path / "empty.pt"), "empty.pt", "is empty")
    other = {"model": {}, "config": {"data": {"root": str(shapes), "val_split": "val"}}, "epoch": 1, "step": 1}
    save_checkpoint(tmp_path / "other.pt", other | {"classes": ["cat"]})
    fails(command("eval.py", "--ckpt", tmp_path / "other.pt"), "other.pt", "1 classes", "instances_val.json")
