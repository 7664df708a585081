"""Damaged images are found before anything is spent: by the check, by a dry run and by training, with one remedy."""

import runpy
import shutil

import pytest

import train
from data.coco import IMAGE_REMEDY


@pytest.fixture
def damaged(shapes, tmp_path):
    """A copy of the data with one training image cut short and one validation image gone."""
    root = tmp_path / "damaged"
    shutil.copytree(shapes, root)
    first, last = sorted((root / "train").iterdir())[0], sorted((root / "val").iterdir())[-1]
    first.write_bytes(first.read_bytes()[:-200])
    last.unlink()
    return root, first, last


def call(monkeypatch, *arguments) -> int:
    monkeypatch.setattr("sys.argv", ["train.py", *map(str, arguments)])
    try:
        return train.main()
    except SystemExit as stop:
        return stop.code


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_training_and_a_dry_run_name_the_image_before_the_first_step(
    damaged, config_file, monkeypatch, capsys, tmp_path, more
):
    root, first, last = damaged
    assert call(monkeypatch, "--config", config_file, f"data.root={root}", *more) == 2
    said = capsys.readouterr().err
    assert f"error: {first}: unreadable image" in said and IMAGE_REMEDY in said
    assert not (tmp_path / "runs/tiny").exists()
    shutil.copy(last.parent / sorted(last.parent.iterdir())[0].name, first)  # an image, if another one
    assert call(monkeypatch, "--config", config_file, f"data.root={root}", *more) == 2
    assert f"error: {last}: no such image file" in capsys.readouterr().err


def test_several_are_counted(damaged, config_file, monkeypatch, capsys):
    root, first, _ = damaged
    for path in sorted(first.parent.iterdir())[:3]:
        path.write_bytes(b"")
    assert call(monkeypatch, "--config", config_file, f"data.root={root}") == 2
    assert f"error: 3 of 12 images cannot be used, such as {first}: " in capsys.readouterr().err


def test_the_check_ends_with_the_same_remedy(damaged, monkeypatch, capsys):
    root, first, last = damaged
    arguments = ("--root", root, "--split", "train", "--split", "val")
    monkeypatch.setattr("sys.argv", ["check_dataset.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path("scripts/check_dataset.py", run_name="__main__")
    said = capsys.readouterr().out
    assert stop.value.code == 1
    assert said.count(f"Remedy: {IMAGE_REMEDY}") == 2 and str(first) in said and str(last) in said


def test_what_is_to_be_skipped_is_no_error(damaged, config_file, monkeypatch, capsys):
    root, _, _ = damaged
    assert call(monkeypatch, "--config", config_file, f"data.root={root}", "--dry-run", "data.on_error=skip") == 0
