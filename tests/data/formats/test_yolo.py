"""YOLO labels become COCO data that the loader reads, box for box."""

import pytest
import torch
from PIL import Image

from data import CocoDetection, DatasetError
from data.formats.convert import write_splits
from data.formats.yolo import YoloFolder


@pytest.mark.parametrize(("exif", "expected"), [("turn", (200, 100)), ("ignore", (100, 200))])
def test_labels_drawn_on_stored_pixels_refer_to_the_stored_size(yolo, tmp_path, exif, expected):
    root = yolo({"images/a.jpg": ["0 0.5 0.25 0.5 0.5"]}, "names: [cat]")
    tags = Image.Exif()
    tags[0x0112] = 8
    pixels = Image.new("RGB", (200, 100))
    pixels.paste((255, 0, 0), (50, 0, 150, 50))
    pixels.save(root / "images/a.jpg", exif=tags, quality=100, subsampling=0)
    folder = YoloFolder(root, exif=exif)
    images = folder.read(folder.all_images())
    assert images[0].size == expected
    write_splits(tmp_path / "out", {"train": images}, ["cat"], copy=False)
    image, target = CocoDetection(tmp_path / "out", "train", exif=exif)[0]
    x1, y1, x2, y2 = target["boxes"][0].int().tolist()
    assert ((image[0, y1:y2, x1:x2] > 200).float().mean() > 0.99) == (exif == "ignore")


def test_yolo_boxes_polygons_and_images_without_labels(yolo, tmp_path):
    lines = ["1 0.5 0.5 0.25 0.5", "", "0 0.1 0.2 0.3 0.2 0.2 0.8"]
    root = yolo({"images/a.jpg": lines, "images/b.jpg": None}, None)
    (root / "classes.txt").write_text("cat\ndog\n")
    folder = YoloFolder(root)
    assert folder.image_sets() == {}
    write_splits(tmp_path / "out", {"train": folder.read(folder.all_images())}, folder.class_names, copy=False)
    dataset = CocoDetection(tmp_path / "out", "train")
    torch.testing.assert_close(dataset[0][1]["boxes"], torch.tensor([[75.0, 25, 125, 75], [20, 20, 60, 80]]))
    assert dataset[0][1]["labels"].tolist() == [1, 0]
    assert len(dataset) == 2 and len(dataset[1][1]["boxes"]) == 0


@pytest.mark.parametrize("names", ["[cat, dog]", "{0: cat, 1: dog}"])
@pytest.mark.parametrize("layout", ["train: images/train\nval: [images/val]", "train: ../images/train\nval: val.txt"])
def test_data_yaml_gives_classes_and_splits(yolo, names, layout):
    root = yolo({"images/train/a.jpg": [], "images/val/b.jpg": []}, f"names: {names}\n{layout}\n")
    (root / "val.txt").write_text("./images/val/b.jpg\n")
    folder = YoloFolder(root)
    assert folder.class_names == ["cat", "dog"]
    splits = folder.image_sets()
    assert {split: [image.file_name for image in folder.read(paths)] for split, paths in splits.items()} == {
        "train": ["a.jpg"],
        "val": ["b.jpg"],
    }


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("0 0.5 0.5 0.2", "line 2: needs"),
        ("0 0.5 x 0.2 0.2", "line 2: .* not a row of numbers"),
        ("2 0.5 0.5 0.2 0.2", "line 2: class 2 is none of the 2"),
        ("0.5 0.5 0.5 0.2 0.2", "line 2: class 0.5"),
        ("0 50 40 20 20", "line 2: .* fractions"),
        ("0 nan 0.5 0.2 0.2", "line 2: .* fractions"),
    ],
)
def test_yolo_lines_that_cannot_be_used_are_named(yolo, line, match):
    folder = YoloFolder(yolo({"images/a.jpg": ["0 0.5 0.5 0.2 0.2", line]}, "names: [cat, dog]"))
    with pytest.raises(DatasetError, match=rf"a\.txt: {match}"):
        folder.read(folder.all_images())


@pytest.mark.parametrize("text", ["names: [", "names: 3", "names: {1: cat}", "names: [cat, cat]", "[]"])
def test_class_names_that_cannot_be_used(yolo, text):
    with pytest.raises(DatasetError, match="yolo"):
        YoloFolder(yolo({"images/a.jpg": []}, text))


def test_images_of_one_name_keep_their_folders(yolo, tmp_path):
    line = "0 0.5 0.5 0.2 0.2"
    folder = YoloFolder(yolo({"images/x/a.jpg": [line], "images/y/a.jpg": [line, line]}, "names: [cat]"))
    write_splits(tmp_path / "out", {"train": folder.read(folder.all_images())}, ["cat"], copy=False)
    dataset = CocoDetection(tmp_path / "out", "train")
    names = [dataset.path(index).relative_to(tmp_path / "out/train").as_posix() for index in range(2)]
    assert names == ["x/a.jpg", "y/a.jpg"] and [len(dataset[index][1]["boxes"]) for index in range(2)] == [1, 2]


def test_images_without_any_object_are_refused(yolo, tmp_path):
    folder = YoloFolder(yolo({"images/a.jpg": [], "images/b.jpg": None}, "names: [cat]"))
    with pytest.raises(DatasetError, match="not one of 2 images has a labelled object"):
        write_splits(tmp_path / "out", {"train": folder.read(folder.all_images())}, ["cat"], copy=False)
