"""Which image a VOC annotation is of: never two of one image, and never one of another folder."""

import re
from pathlib import Path

import pytest
from voc_files import BOX, annotation, convert, lists, write

from data.errors import DatasetError
from data.formats.convert import LabelledImage
from data.formats.tally import FileTally
from data.formats.voc import VocFolder


def test_two_annotations_of_one_image_are_refused(tmp_path):
    write(tmp_path, "Annotations/a.xml", "Annotations/b.xml", "JPEGImages/a.jpg")
    (tmp_path / "Annotations/b.xml").write_text(annotation("a.jpg"))
    with pytest.raises(DatasetError, match=r"b\.xml: .*JPEGImages/a\.jpg.*Annotations/a\.xml.*remove one"):
        convert(tmp_path)


def test_an_image_in_two_splits_is_read_twice(tmp_path):
    write(tmp_path, "a.xml", "a.jpg")
    voc = VocFolder(tmp_path)
    for _split in ("train", "val"):
        (image,) = voc.read(voc.xml_files, "crowd")
        assert (image.path, image.file_name, image.size) == (tmp_path / "a.jpg", "a.jpg", (12, 16))
        assert [found.box for found in image.objects] == [BOX]


def test_only_images_in_two_splits_are_said_to_be(tmp_path):
    write(tmp_path, "a.jpg", "b.jpg")
    once, twice = (LabelledImage(tmp_path / name, name, (12, 16), []) for name in ("a.jpg", "b.jpg"))
    splits = {"train": [once, once, twice], "val": [twice]}
    lines = FileTally().lines(tmp_path, splits, lambda path: ("file", ""))
    assert "in more than one of the splits train, val: 1 image" in lines


@pytest.mark.parametrize("images", ["JPEGImages", "images"])
@pytest.mark.parametrize(
    ("xml", "image", "found"),
    [
        ("day1/1.xml", "day1/1.jpg", True),
        ("day1/1.xml", "day2/1.jpg", False),
        ("day1/1.xml", "1.jpg", True),
        ("1.xml", "day2/1.jpg", True),
        ("cam/day1/1.xml", "day1/1.jpg", True),
        ("day1/1.xml", "cam/day1/1.jpg", True),
        ("day1/cam/1.xml", "day1/1.jpg", False),
        ("xday1/1.xml", "day1/1.jpg", False),
    ],
)
def test_a_name_alone_finds_no_image_of_another_folder(tmp_path, images, xml, image, found):
    write(tmp_path, f"Annotations/{xml}", f"{images}/{image}")
    (tmp_path / f"Annotations/{xml}").write_text(annotation("1.jpg"))
    if found:
        assert [Path(name).name for name in convert(tmp_path)[0]["train"]] == ["1.jpg"]
    else:
        with pytest.raises(DatasetError, match=rf"1\.xml: no image {re.escape(xml[:-4])}\.\*"):
            convert(tmp_path)


@pytest.mark.parametrize(("beside", "found"), [("day2/2.xml", False), ("day2/2.txt", True)])
def test_side_by_side_an_image_is_of_the_annotations_beside_it(tmp_path, beside, found):
    write(tmp_path, "day1/1.xml", "day2/1.jpg", "day2/2.jpg", beside)
    if found:
        assert convert(tmp_path)[0] == {"train": ["day2/1.jpg"]}
    else:
        with pytest.raises(DatasetError, match=r"day1/1\.xml: no image day1/1\.\*"):
            convert(tmp_path)


def test_a_file_name_with_its_folder_finds_an_image_of_another_folder(tmp_path):
    write(tmp_path, "Annotations/a/1.xml", "JPEGImages/b/1.jpg")
    (tmp_path / "Annotations/a/1.xml").write_text(annotation("b/1.jpg"))
    assert convert(tmp_path)[0] == {"train": ["b/1.jpg"]}


def test_an_image_whose_name_alone_is_that_of_an_annotation_has_none(tmp_path):
    write(tmp_path, "Annotations/a/1.xml", "JPEGImages/a/1.jpg", "JPEGImages/b/1.jpg")
    assert convert(tmp_path)[1][1] == "  1 image without an XML file (JPEGImages/b/1.jpg)"


@pytest.mark.parametrize(
    ("line", "xml", "image"),
    [
        ("JPEGImages/1.jpg", "Annotations/1.xml", "JPEGImages/1.jpg"),
        ("/home/me/JPEGImages/day1/1.jpg", "Annotations/day1/1.xml", "JPEGImages/day1/1.jpg"),
        ("day1\\1", "Annotations/1.xml", "JPEGImages/day1/1.jpg"),
        ("1", "Annotations/day1/1.xml", "JPEGImages/day1/1.jpg"),
        ("pics/1.jpg", "xml/1.xml", "pics/1.jpg"),
    ],
)
def test_a_line_finds_the_annotation_of_its_folder_or_image(tmp_path, line, xml, image):
    lists(write(tmp_path, xml, image), train=f"{line}\n")
    assert [Path(name).name for name in convert(tmp_path)[0]["train"]] == ["1.jpg"]


@pytest.mark.parametrize(
    ("line", "files"),
    [
        ("day1/1", ["Annotations/day2/1.xml", "JPEGImages/day2/1.jpg"]),
        ("day1/1 -1", ["Annotations/day2/1.xml", "JPEGImages/day2/1.jpg"]),
        ("day1/1", ["Annotations/day2/1.xml", "JPEGImages/day2/1.jpg", "JPEGImages/day1/1.jpg"]),
        ("pics/1.png", ["xml/1.xml", "other/1.jpg"]),
    ],
)
def test_a_line_with_a_folder_finds_no_annotation_of_another(tmp_path, line, files):
    lists(write(tmp_path, *files), train=f"{line}\n")
    with pytest.raises(DatasetError, match=r"train\.txt: lists \w+/1.*, and there is no"):
        convert(tmp_path)
