"""VOC labels become COCO data that the loader reads, box for box."""

import json

import pytest
import torch
from PIL import Image
from voc_labels import read, voc_object

from data import CocoDetection, DatasetError
from data.formats.convert import write_splits
from data.formats.voc import VocFolder

TWO_BOXES = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>5</ymax></bndbox>" * 2


def test_voc_corners_are_one_based_and_inclusive(voc, tmp_path):
    images = read(voc({"a": [voc_object(box=(1, 1, 64, 48)), voc_object("dog", (11, 21, 11, 40))]}))
    assert [item.box for item in images[0].objects] == [(0, 0, 64, 48), (10, 20, 11, 40)]
    write_splits(tmp_path / "out", {"train": images}, ["cat", "dog"], copy=False)
    _, target = CocoDetection(tmp_path / "out", "train")[0]
    assert torch.equal(target["boxes"], torch.tensor([[0.0, 0, 64, 48], [10, 20, 11, 40]]))
    assert target["labels"].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("difficult", "crowd"), [("crowd", [False, True]), ("keep", [False, False]), ("drop", [False])]
)
def test_difficult_objects(voc, difficult, crowd):
    (image,) = read(voc({"a": [voc_object(difficult=0), voc_object(difficult=1)]}), difficult)
    assert [item.crowd for item in image.objects] == crowd


def test_boxes_are_cut_at_the_border_and_those_without_area_are_counted(voc, tmp_path):
    boxes = [(0, 0, 0, 0), (60, 40, 99, 99), (30, 30, 20, 40)]
    images = read(voc({"a": [voc_object(box=box) for box in boxes], "b": []}))
    report = write_splits(tmp_path / "out", {"train": images}, ["cat"], copy=True)["train"]
    document = json.loads(report.annotation_file.read_text())
    assert [record["bbox"] for record in document["annotations"]] == [[59, 39, 5, 9]]
    assert report.dropped == ["a.jpg (cat)", "a.jpg (cat)"]
    assert [image["file_name"] for image in document["images"]] == ["a.jpg", "b.jpg"]  # b has no object and stays


@pytest.mark.parametrize("mark", ["1", " 1.0 ", "True", "yes"])
def test_ways_to_mark_an_object_difficult(voc, mark):
    (image,) = read(voc({"a": [voc_object(difficult=mark), voc_object(difficult="0.0"), voc_object(difficult="")]}))
    assert [item.crowd for item in image.objects] == [True, False, False]


@pytest.mark.parametrize(
    "size", [None, (0, 0), (0, 48), ("", ""), (" ", 48), ("0.0", "0.0"), (64, 48), ("64.0", "4.8e1")]
)
def test_the_size_comes_from_the_file_where_the_annotation_has_none(voc, size):
    assert read(voc({"a": []}, size=size))[0].size == (48, 64)


def test_a_size_turned_by_exif_is_kept_and_readable(voc, tmp_path):
    images = read(voc({"a": [voc_object()]}, size=(48, 64), exif=6))
    assert images[0].size == (64, 48)
    write_splits(tmp_path / "out", {"train": images}, ["cat"], copy=False)
    image, _ = CocoDetection(tmp_path / "out", "train")[0]
    assert image.shape == (3, 64, 48)


@pytest.mark.parametrize(("size", "expected"), [(None, (64, 48)), ((48, 64), (64, 48)), ((64, 48), (48, 64))])
def test_without_a_size_that_says_otherwise_the_annotator_saw_the_turned_image(voc, size, expected):
    assert read(voc({"a": [voc_object()]}, size=size, exif=6))[0].size == expected


def test_image_sets_give_the_splits(voc):
    root = voc({"a": [], "b": [], "c": []}, lists={"train": ["a", "c"], "test": ["b"]})
    splits = VocFolder(root).image_sets()
    assert {split: [path.stem for path in paths] for split, paths in splits.items()} == {
        "train": ["a", "c"],
        "test": ["b"],
    }
    (root / "ImageSets/Main/val.txt").write_text("gone\n")
    with pytest.raises(DatasetError, match=r"val\.txt: lists gone"):
        VocFolder(root).image_sets()


def test_xml_files_beside_their_images(tmp_path):
    (tmp_path / "x.xml").write_text(f"<annotation>{voc_object()}</annotation>")
    Image.new("RGB", (64, 48)).save(tmp_path / "x.PNG")
    assert read(tmp_path)[0].path == tmp_path / "x.PNG"


@pytest.mark.parametrize(
    ("objects", "size", "match"),
    [
        ([voc_object(name="")], (64, 48), r"a\.xml: object 1 has no name"),
        ([voc_object(), voc_object(box=(1, 2, "x", 4))], (64, 48), r"a\.xml: object 2 has no bndbox"),
        ([voc_object(box=(1, 2, None, 4))], (64, 48), r"a\.xml: object 1 has no bndbox"),
        ([voc_object(box=(1, 2, "inf", 4))], (64, 48), r"a\.xml: object 1 has no bndbox"),
        ([voc_object(box=("nan", 2, 3, 4))], (64, 48), r"a\.xml: object 1 has no bndbox"),
        (["<object><name>cat</name></object>"], (64, 48), r"a\.xml: object 1 has no bndbox"),
        ([f"<object><name>cat</name>{TWO_BOXES}</object>"], (64, 48), r"a\.xml: object 1 has 2 bndboxes; mend"),
        (
            [voc_object(box=(0, 1, 1, 1)), voc_object(box=(0, 0.25, 1.004, 0.5))],
            (64, 48),
            r"a\.xml: all corners lie in 0\.\.1: fractions .*; multiply x by the image's width, y by its height",
        ),
        (["<object>"], (64, 48), r"a\.xml: not valid XML"),
        ([], ("64.5", 48), r"a\.xml: <size> has the width '64\.5', .*; mend or remove <size>"),
        ([], (64, "-48"), r"a\.xml: <size> has the height '-48'"),
        ([], (64, "nan"), r"a\.xml: <size> has the height 'nan'"),
        ([], ("1e999", 48), r"a\.xml: <size> has the width '1e999'"),
        ([], (0, "48px"), r"a\.xml: <size> has the height '48px'"),
        ([], ("63.0", "48."), r"a\.xml: says that the image is 63×48, and a\.jpg is 64×48"),
        ([], (63, 48), r"a\.xml: says that the image is 63×48, and a\.jpg is 64×48"),
    ],
)
def test_voc_files_that_cannot_be_used_are_named(voc, objects, size, match):
    with pytest.raises(DatasetError, match=match):
        read(voc({"a": objects}, size=size))


def test_an_annotation_without_its_image_is_named(voc):
    root = voc({"a": []})
    (root / "JPEGImages/a.jpg").unlink()
    with pytest.raises(DatasetError, match=r"a\.xml: no image a\.\*"):
        read(root)


def test_a_box_within_a_pixel_beside_others_is_no_fraction(voc):
    (image,) = read(voc({"a": [voc_object(box=(0.0, 0.0, 0.7, 0.4)), voc_object()]}))
    assert len(image.objects) == 2
