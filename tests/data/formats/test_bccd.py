"""BCCD as its repository lays it out, and the data set that the measurements in docs/ are of."""

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from scripts.bccd_to_coco import main

SPLITS = ("train", "val", "test")


def write_voc(root: Path, images: list[tuple[str, str, list[tuple[str, list[int]]]]]) -> Path:
    """Images as (split, stem, objects), an object as (name, corners)."""
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for _, stem, objects in images:
        Image.new("RGB", (640, 480)).save(root / f"JPEGImages/{stem}.jpg")
        texts = []
        for name, corners in objects:
            sides = "".join(
                f"<{side}>{value}</{side}>"
                for side, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
            )
            texts.append(f"<object><name>{name}</name><difficult>0</difficult><bndbox>{sides}</bndbox></object>")
        size = "<size><width>640</width><height>480</height><depth>3</depth></size>"
        head = f"<filename>{stem}.jpg</filename>{size}"
        (root / f"Annotations/{stem}.xml").write_text(f"<annotation>{head}{''.join(texts)}</annotation>")
    for split in SPLITS:
        stems = [stem for of_split, stem, _ in images if of_split == split]
        (root / f"ImageSets/Main/{split}.txt").write_text("".join(f"{stem}\n" for stem in stems))
    return root


def convert(monkeypatch, root: Path, output: Path) -> dict[str, dict]:
    monkeypatch.setattr(sys, "argv", ["bccd_to_coco.py", str(root), "--output", str(output)])
    main()
    return {split: json.loads((output / f"annotations/instances_{split}.json").read_text()) for split in SPLITS}


def test_corners_are_taken_as_they_stand_and_classes_numbered_as_in_its_readme(tmp_path, monkeypatch, capsys):
    # two objects of its BloodImage_00002, one of another class, and one without area, as BCCD has two
    images = [
        ("train", "a", [("Platelets", [5, 6, 7, 9]), ("RBC", [181, 329, 181, 329])]),
        ("val", "BloodImage_00002", [("RBC", [385, 98, 523, 198]), ("WBC", [283, 1, 567, 106])]),
        ("test", "b", [("RBC", [1, 1, 640, 480])]),
    ]
    found = convert(monkeypatch, write_voc(tmp_path / "BCCD", images), tmp_path / "out")
    boxes = {split: [(each["category_id"], each["bbox"]) for each in found[split]["annotations"]] for split in SPLITS}
    assert boxes == {
        "train": [(3, [5, 6, 2, 3])],
        "val": [(1, [385, 98, 138, 100]), (2, [283, 1, 284, 105])],
        "test": [(1, [1, 1, 639, 479])],
    }
    assert [each["name"] for each in found["test"]["categories"]] == ["RBC", "WBC", "Platelets"]
    assert "1 box without area in its image was left out: a.jpg (RBC)" in capsys.readouterr().out


def test_a_folder_without_its_lists_is_named(tmp_path, monkeypatch, capsys):
    root = write_voc(tmp_path / "BCCD", [("train", "a", [("RBC", [1, 2, 3, 4])])])
    (root / "ImageSets/Main/test.txt").unlink()
    with pytest.raises(SystemExit):
        convert(monkeypatch, root, tmp_path / "out")
    assert "no ImageSets/Main/test.txt; name the folder BCCD of the clone" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_was_measured_is_what_the_script_makes(shared, tmp_path, monkeypatch):
    """The annotations were converted from the repository by somebody else; from what they say of it come the same."""
    source = shared / "data" / "bccd" / "annotations"
    known = {split: json.loads((source / f"instances_{split}.json").read_text()) for split in SPLITS}
    images = []
    for split, document in known.items():
        names = {each["id"]: each["name"] for each in document["categories"]}
        objects: dict[int, list] = {each["id"]: [] for each in document["images"]}
        for each in document["annotations"]:
            x, y, width, height = map(int, each["bbox"])
            objects[each["image_id"]].append((names[each["category_id"]], [x, y, x + width, y + height]))
        images += [(split, Path(each["file_name"]).stem, objects[each["id"]]) for each in document["images"]]
    found = convert(monkeypatch, write_voc(tmp_path / "BCCD", images), tmp_path / "out")
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
