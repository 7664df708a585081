"""BCCD as its repository lays it out, and the data set that the measurements in docs/ are of."""

import json
import sys
from pathlib import Path

import pytest
from voc_labels import voc_object

from scripts.bccd_to_coco import main

SPLITS = ("train", "val", "test")


Images = dict[str, dict[str, list[str]]]  # split -> name -> its objects


@pytest.fixture
def bccd(voc):
    """bccd(images) -> folder like BCCD/ of the repository."""

    def write(images: Images) -> Path:
        files = {name: objects for of_split in images.values() for name, objects in of_split.items()}
        return voc(files, (640, 480), lists=images, stored=(640, 480))

    return write


def convert(monkeypatch, root: Path, output: Path) -> dict[str, dict]:
    monkeypatch.setattr(sys, "argv", ["bccd_to_coco.py", str(root), "--output", str(output)])
    main()
    return {split: json.loads((output / f"annotations/instances_{split}.json").read_text()) for split in SPLITS}


def test_corners_are_taken_as_they_stand_and_classes_numbered_as_in_its_readme(bccd, tmp_path, monkeypatch, capsys):
    # two objects of its BloodImage_00002, one of another class, and one without area, as BCCD has two
    images = {
        "train": {"a": [voc_object("Platelets", (5, 6, 7, 9)), voc_object("RBC", (181, 329, 181, 329))]},
        "val": {"BloodImage_00002": [voc_object("RBC", (385, 98, 523, 198)), voc_object("WBC", (283, 1, 567, 106))]},
        "test": {"b": [voc_object("RBC", (1, 1, 640, 480))]},
    }
    found = convert(monkeypatch, bccd(images), tmp_path / "out")
    boxes = {split: [(each["category_id"], each["bbox"]) for each in found[split]["annotations"]] for split in SPLITS}
    assert boxes == {
        "train": [(3, [5, 6, 2, 3])],
        "val": [(1, [385, 98, 138, 100]), (2, [283, 1, 284, 105])],
        "test": [(1, [1, 1, 639, 479])],
    }
    assert [each["name"] for each in found["test"]["categories"]] == ["RBC", "WBC", "Platelets"]
    assert "1 box without area in its image was left out: a.jpg (RBC)" in capsys.readouterr().out


def test_a_folder_without_its_lists_is_named(bccd, tmp_path, monkeypatch, capsys):
    root = bccd({"train": {"a": [voc_object("RBC", (1, 2, 3, 4))]}, "val": {}})
    with pytest.raises(SystemExit):
        convert(monkeypatch, root, tmp_path / "out")
    assert "no ImageSets/Main/test.txt; name the folder BCCD of the clone" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_was_measured_is_what_the_script_makes(shared, bccd, tmp_path, monkeypatch):
    """The annotations were converted from the repository by somebody else; from what they say of it come the same."""
    source = shared / "data" / "bccd" / "annotations"
    known = {split: json.loads((source / f"instances_{split}.json").read_text()) for split in SPLITS}
    images: Images = {}
    for split, document in known.items():
        names = {each["id"]: each["name"] for each in document["categories"]}
        objects: dict[int, list[str]] = {each["id"]: [] for each in document["images"]}
        for each in document["annotations"]:
            x, y, width, height = map(int, each["bbox"])
            box = (x, y, x + width, y + height)
            objects[each["image_id"]].append(voc_object(names[each["category_id"]], box))
        images[split] = {Path(each["file_name"]).stem: objects[each["id"]] for each in document["images"]}
    found = convert(monkeypatch, bccd(images), tmp_path / "out")
    for split in SPLITS:
        keys = {
            "images": ("id", "file_name", "height", "width"),
            "categories": ("id", "name"),
            "annotations": ("image_id", "category_id", "bbox", "iscrowd"),
        }
        for section, names in keys.items():
            expected = [each for each in known[split][section] if "bbox" not in each or each["bbox"][2] > 0]
            mine, theirs = (
                [[each[key] for key in names] for each in side] for side in (found[split][section], expected)
            )
            assert mine == theirs
