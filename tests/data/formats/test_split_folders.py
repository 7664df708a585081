"""Folders named train, val and test are splits where nothing else names any; else a line says how they are drawn."""

import sys
from pathlib import Path

import pytest
import voc_files
import yolo_files

from data.formats.split_folders import split_by_folders
from data.formats.tally import FileTally
from data.formats.yolo import YoloFolder
from scripts import voc_to_coco, yolo_to_coco


def splits(root: Path, *names: str) -> dict[str, list[str]]:
    found = split_by_folders([root / name for name in names], root, FileTally())
    return {split: [path.relative_to(root).as_posix() for path in paths] for split, paths in found.items()}


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("train/images/a", "valid/images/b", "test/images/c"),
        ("images/train/a", "Images/VAL/b", None),
        ("Annotations/Train/a", "Annotations/Validation/x/b", None),
        ("train/a", None, "test/c"),
        ("JPEGImages/train/a", "labels/val/b", None),
        ("images/images/train/test/a", "images/val/b", None),
    ],
)
def test_the_first_folder_that_tells_more_than_the_kind_of_file_decides(tmp_path, train, val, test):
    expected = {split: [name] for split, name in (("train", train), ("val", val), ("test", test)) if name}
    names = [name for (name,) in expected.values()]
    assert splits(tmp_path, *names, "extra/train/x", "y") == expected


@pytest.mark.parametrize(
    "names",
    [
        ["train/a", "train/val/b"],  # all in one
        ["val/b", "test/c"],  # nothing to train on
        ["x/train/a", "x/val/b"],
        ["trains/a", "vals/b"],
        ["train", "val"],  # files of these names
    ],
)
def test_other_folders_are_no_splits(tmp_path, names):
    assert splits(tmp_path, *names) == {}


def test_voc_folders_are_splits_and_what_is_in_none_is_counted(tmp_path):
    names = [f"{folder}/{name}" for folder, name in (("train", 1), ("valid", 2), ("test", 3), ("extra", 4))]
    voc_files.write(tmp_path, *(f"{name}.{suffix}" for name in names for suffix in ("xml", "jpg")))
    found, lines = voc_files.convert(tmp_path)
    assert found == {"train": ["train/1.jpg"], "val": ["valid/2.jpg"], "test": ["test/3.jpg"]}
    assert lines == [
        "files: 8 seen = 6 used + 2 left out",
        "  1 XML file in no folder of a split (extra/4.xml)",
        "  1 image whose XML file is not used (extra/4.jpg)",
        f"{tmp_path}: the splits are those of the folders, as nothing else names any: train, val, test",
    ]


def test_lists_of_voc_come_before_folders(tmp_path):
    voc_files.write(tmp_path, *(f"{name}.{suffix}" for name in ("train/1", "val/2") for suffix in ("xml", "jpg")))
    voc_files.lists(tmp_path, train="val/2\n", test="train/1\n")
    assert voc_files.convert(tmp_path)[0] == {"train": ["val/2.jpg"], "test": ["train/1.jpg"]}


@pytest.mark.parametrize(
    "layout", [("{0}/images/{1}.jpg", "{0}/labels/{1}.txt"), ("images/{0}/{1}.jpg", "labels/{0}/{1}.txt")]
)
def test_yolo_folders_are_splits_and_what_is_in_none_is_counted(tmp_path, layout):
    for split, name in (("train", "a"), ("train", "x/a"), ("valid", "b"), ("extra", "c")):
        yolo_files.write(tmp_path, *(path.format(split, name) for path in layout))
    yolo_files.write(tmp_path, classes="cat\n")
    found, lines = yolo_files.convert(tmp_path)
    assert found == {"train": {"a.jpg": 1, "x/a.jpg": 1}, "val": {"b.jpg": 1}}
    image, labels = (path.format("extra", "c") for path in layout)
    assert lines == [
        "files: 9 seen = 7 used + 2 left out",
        f"  1 image in no split ({image})",
        f"  1 text file whose image is in no split ({labels})",
        f"{tmp_path}: the splits are those of the folders, as nothing else names any: train, val",
    ]


@pytest.mark.parametrize("key", ["Train", "TRAIN", "train"])
def test_keys_of_splits_may_be_in_any_case_and_come_before_folders(tmp_path, key):
    for split in ("train", "val"):
        yolo_files.write(tmp_path, f"images/{split}/a.jpg", f"labels/{split}/a.txt")
    yolo_files.described(tmp_path, f"{key}: images/val\nVal: ~\nTest: images/train\nnames: [cat]")
    assert yolo_files.convert(tmp_path)[0] == {"train": {"a.jpg": 1}, "test": {"a.jpg": 1}}


@pytest.mark.parametrize(
    ("script", "files", "names"),
    [(voc_to_coco, voc_files, ("{}.xml", "{}.jpg")), (yolo_to_coco, yolo_files, ("{}.jpg", "{}.txt"))],
)
def test_a_split_that_is_drawn_is_said(tmp_path, monkeypatch, capsys, script, files, names):
    root = files.write(tmp_path / "in", *(part.format(number) for part in names for number in range(8)))
    (root / "classes.txt").write_text("cat\n")
    command = ["convert", str(root), "--output", str(tmp_path / "out"), "--test", "0.25", "--seed", "3"]
    monkeypatch.setattr(sys, "argv", command)
    script.main()
    assert "split at random: --val 0.2 --test 0.25 --seed 3" in capsys.readouterr().out.splitlines()
    for number in range(8):
        for part in names:
            path = root / part.format(number)
            split = "train" if number else "val"
            (root / split).mkdir(exist_ok=True)
            path.rename(root / split / path.name)
    monkeypatch.setattr(sys, "argv", [*command, "--overwrite"])
    script.main()
    out = capsys.readouterr().out
    assert "at random" not in out and "train: 7 images" in out and "val: 1 image," in out


@pytest.mark.parametrize(
    ("script", "files", "names"),
    [(voc_to_coco, voc_files, ("{}.xml", "{}.jpg")), (yolo_to_coco, yolo_files, ("{}.jpg", "{}.txt"))],
)
def test_val_is_drawn_from_train_where_no_folder_is_called_so(tmp_path, monkeypatch, capsys, script, files, names):
    folders = ["train"] * 5 + ["test"] * 2
    root = files.write(
        tmp_path / "in", *(f"{folder}/{part.format(i)}" for i, folder in enumerate(folders) for part in names)
    )
    (root / "classes.txt").write_text("cat\n")
    monkeypatch.setattr(sys, "argv", ["convert", str(root), "--output", str(tmp_path / "out")])
    script.main()
    said = capsys.readouterr().out
    assert "val drawn at random from train, as nothing is called so: --val 0.2 --seed 0" in said.splitlines()
    assert all(text in said for text in ("train: 4 images", "val: 1 image,", "test: 2 images"))


def test_pictures_beside_labels_are_no_images_of_the_data(tmp_path):
    for split in ("train", "val"):
        yolo_files.write(tmp_path, f"images/{split}/a.jpg", f"labels/{split}/a.txt", f"labels/{split}/a.png")
    yolo_files.write(tmp_path, classes="cat\n")
    assert yolo_files.convert(tmp_path)[0] == {"train": {"a.jpg": 1}, "val": {"a.jpg": 1}}
    assert [path.name for path in YoloFolder(tmp_path).all_images()] == ["a.jpg", "a.jpg"]
