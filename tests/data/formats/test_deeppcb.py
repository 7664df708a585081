"""DeepPCB as its repository lays it out: lists of pairs, the tested image of each, corners and a number a defect."""

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from scripts.deeppcb_to_coco import main


@pytest.fixture
def pcb_data(tmp_path) -> Path:
    root = tmp_path / "PCBData"
    lines = []
    for number in range(12):
        name = f"0004100{number:02}"
        for folder in ("00041", "00041_not"):
            (root / "group00041" / folder).mkdir(parents=True, exist_ok=True)
        for kind in ("temp", "test"):
            Image.new("L", (640, 640), 255).save(root / f"group00041/00041/{name}_{kind}.jpg")
        labels = f"10 20 40 60 {number % 6 + 1}\n"
        (root / f"group00041/00041_not/{name}.txt").write_text(labels if number < 11 else labels.replace(" ", ","))
        lines.append(f"group00041/00041/{name}.jpg group00041/00041_not/{name}.txt")
    (root / "trainval.txt").write_text("\n".join(lines[:11]) + "\n")
    (root / "test.txt").write_text(lines[11] + "\n")
    return root


def convert(monkeypatch, root: Path, output: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["deeppcb_to_coco.py", str(root), "--output", str(output)])
    main()


def test_every_tenth_image_is_val_and_the_tested_one_of_a_pair_counts(pcb_data, tmp_path, monkeypatch, capsys):
    convert(monkeypatch, pcb_data, tmp_path / "out")
    documents = {
        split: json.loads((tmp_path / f"out/annotations/instances_{split}.json").read_text())
        for split in ("train", "val", "test")
    }
    assert {split: len(document["images"]) for split, document in documents.items()} == {
        "train": 10,
        "val": 1,
        "test": 1,
    }
    assert documents["val"]["images"][0]["file_name"] == "000410009.jpg"
    image = tmp_path / "out/val/000410009.jpg"
    assert image.resolve() == (pcb_data / "group00041/00041/000410009_test.jpg").resolve()
    (defect,) = documents["val"]["annotations"]
    assert defect["bbox"] == [10, 20, 30, 40] and defect["category_id"] == 9 % 6 + 1
    assert [each["name"] for each in documents["test"]["categories"]] == [
        *("open", "short", "mousebite", "spur", "copper", "pin-hole")
    ]
    assert "train: 10 images, 10 objects" in capsys.readouterr().out


@pytest.mark.parametrize("line", ["10 20 40 60", "10 20 40 60 7", "a b c d e"])
def test_a_line_that_is_no_defect_is_named(pcb_data, tmp_path, monkeypatch, capsys, line):
    (pcb_data / "group00041/00041_not/000410003.txt").write_text(f"1 2 3 4 1\n{line}\n")
    with pytest.raises(SystemExit):
        convert(monkeypatch, pcb_data, tmp_path / "out")
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "000410003.txt: line 2" in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()
