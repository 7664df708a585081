"""VOC folders as other tools write them: everything that can be read is, and the rest is counted."""

import json
from pathlib import Path

import pytest
from voc_files import BOX, OBJECT, annotation, convert, lists, write

from data.errors import DatasetError
from data.formats.convert import write_splits
from data.formats.voc import VocFolder


def test_files_in_subfolders_keep_their_folder(tmp_path):
    write(tmp_path, "Annotations/1.xml", "JPEGImages/1.jpg", "Annotations/day2/1.xml", "JPEGImages/day2/1.jpg")
    names, lines = convert(tmp_path)
    assert names == {"train": ["1.jpg", "day2/1.jpg"]}
    assert lines == ["files: 4 seen = 4 used + 0 left out"]


def test_lists_name_files_in_subfolders(tmp_path):
    for number in "12":
        write(tmp_path, f"Annotations/day2/{number}.xml", f"JPEGImages/day2/{number}.jpg")
    lists(tmp_path, train="day2/1\n", val="2\n")
    assert convert(tmp_path)[0] == {"train": ["day2/1.jpg"], "val": ["day2/2.jpg"]}


@pytest.mark.parametrize(
    ("line", "stem"),
    [
        ("my photo 1", "my photo 1"),
        ("my photo 1 -1", "my photo 1"),
        ("my photo  1", "my photo"),
        ("a.b.c", "a.b.c"),
        ("x.jpg", "x"),
        ("x.XML", "x"),
        ("day2\\x 1", "day2/x"),
        ("  x\t0  ", "x"),
    ],
)
def test_names_in_lists(tmp_path, line, stem):
    write(tmp_path, f"Annotations/{stem}.xml", f"JPEGImages/{stem}.jpg")
    lists(tmp_path, train=f"{line}\n\n")
    assert convert(tmp_path)[0] == {"train": [f"{stem}.jpg"]}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_lists_of_other_systems(tmp_path, encoding):
    write(tmp_path, "Annotations/Ü.xml", "JPEGImages/Ü.jpg")
    lists(tmp_path, train="")
    (tmp_path / "ImageSets/Main/train.txt").write_bytes("Ü\r\n".encode(encoding))
    assert convert(tmp_path)[0] == {"train": ["Ü.jpg"]}


@pytest.mark.parametrize(
    ("contents", "expected"),
    [
        ({"trainval": "12", "test": "3"}, {"train": "12", "test": "3"}),
        ({"trainval": "12"}, {"train": "12"}),
        ({"trainval": "123", "val": "2"}, {"train": "13", "val": "2"}),
        ({"trainval": "123", "train": "1"}, {"train": "1", "val": "23"}),
        ({"trainval": "123", "train": "1", "val": "2"}, {"train": "1", "val": "2"}),
        ({"trainval": "1", "train": "1", "test": "2"}, {"train": "1", "test": "2"}),
        ({"TEST": "1", "train": "2"}, {"train": "2", "test": "1"}),
        ({"default": "123"}, {"train": "123"}),
    ],
)
def test_trainval_stands_for_the_list_that_is_not_there(tmp_path, contents, expected):
    for number in "123":
        write(tmp_path, f"Annotations/{number}.xml", f"JPEGImages/{number}.jpg")
    lists(tmp_path, **{name: "\n".join(numbers) for name, numbers in contents.items()})
    names, _ = convert(tmp_path)
    assert names == {split: [f"{number}.jpg" for number in numbers] for split, numbers in expected.items()}


def test_what_is_left_out_is_counted_by_reason(tmp_path):
    write(tmp_path, *(f"Annotations/{n}.xml" for n in "123"), *(f"JPEGImages/{n}.jpg" for n in "12345"))
    write(tmp_path, "JPEGImages/notes.csv", "Annotations/._1.xml", "JPEGImages/.ipynb_checkpoints/1-checkpoint.jpg")
    lists(tmp_path, train="1\n1\n2\n", cat_train="1\n")
    names, lines = convert(tmp_path)
    assert names == {"train": ["1.jpg", "2.jpg"]}
    assert lines == [
        "files: 11 seen = 5 used + 6 left out",
        "  1 XML file in no list of a split (Annotations/3.xml)",
        "  1 file of another kind (JPEGImages/notes.csv)",
        "  1 image whose XML file is not used (JPEGImages/3.jpg)",
        "  2 images without an XML file (JPEGImages/4.jpg, JPEGImages/5.jpg)",
        "  1 list of no split (ImageSets/Main/cat_train.txt)",
        f"{tmp_path}/ImageSets/Main/train.txt: lists 1 names twice; each counts once",
    ]


def test_an_image_in_two_splits_is_said(tmp_path):
    for number in "12":
        write(tmp_path, f"Annotations/{number}.xml", f"JPEGImages/{number}.jpg")
    lists(tmp_path, train="1\n2\n", val="2\n")
    assert "in more than one of the splits train, val: 1 image" in convert(tmp_path)[1]


@pytest.mark.parametrize(
    "names",
    [
        ("annotations/1.xml", "jpegimages/1.jpg"),
        ("Annotations/1.XML", "JPEGImages/1.JPG"),
        ("Annotations/1.xml", "images/1.jfif"),
        ("Annotations/1.xml", "1.jpe"),
        ("JPEGImages/a/1.xml", "JPEGImages/a/1.jpg"),
        ("a/1.xml", "a/1.gif"),
        ("Annotations/a/1.xml", "JPEGImages/1.jpg"),
        ("annotations/xmls/1.xml", "images/1.jpg"),
    ],
)
def test_layouts_of_other_tools(tmp_path, names):
    found, lines = convert(write(tmp_path, *names))
    assert [Path(name).name for name in found["train"]] == [Path(names[1]).name]
    assert lines[0] == "files: 2 seen = 2 used + 0 left out"


def test_linked_folders_are_read_and_circles_end(tmp_path):
    root = write(tmp_path / "root", "Annotations/1.xml", "JPEGImages/1.jpg")
    write(tmp_path / "elsewhere", "2.xml", "images/2.jpg")
    (root / "Annotations/more").symlink_to(tmp_path / "elsewhere")
    (root / "JPEGImages/more").symlink_to(tmp_path / "elsewhere/images")
    (root / "Annotations/more/back").symlink_to(root / "Annotations")
    assert convert(root)[0] == {"train": ["1.jpg", "more/2.jpg"]}


def test_an_earlier_conversion_inside_the_folder_is_no_input(tmp_path):
    root = write(tmp_path, "1.xml", "1.jpg")
    for copy in (True, False, True):
        voc = VocFolder(root, root / "out")
        images = voc.read(voc.xml_files, "crowd")
        assert [image.path for image in images] == [root / "1.jpg"]
        write_splits(root / "out", {"train": images}, ["cat"], copy, overwrite=True)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("<a:annotation xmlns:a='http://x.y/z'>{}</a:annotation>", "utf-8"),
        ("<annotation xmlns='http://x.y/z'>{}</annotation>", "utf-8"),
        ("<ANNOTATION>{}</ANNOTATION>", "utf-8"),
        ("<annotation>{}</annotation>", "utf-8-sig"),
        ("<annotation>{}</annotation>", "utf-16"),
        ("<?xml version='1.0' encoding='gbk'?><annotation>{}</annotation>", "gbk"),
        ('<?xml version="1.0" encoding="Shift_JIS" ?>\n<annotation>{}</annotation>', "shift_jis"),
        ("<?xml version='1.0' encoding='utf-16'?><annotation>{}</annotation>", "utf-8"),
        ("<?xml version='1.0' encoding='utf-8'?><!-- 猫 --><annotation>{}</annotation>", "utf-8"),
    ],
)
def test_annotations_of_other_systems(tmp_path, text, encoding):
    write(tmp_path, "1.jpg")
    content = OBJECT.format("猫")
    content = content.upper() if text.startswith("<ANN") else content
    content = content.replace("<", "<a:").replace("<a:/", "</a:") if text.startswith("<a:") else content
    (tmp_path / "1.xml").write_bytes(text.format(content).encode(encoding))
    voc = VocFolder(tmp_path)
    (image,) = voc.read(voc.xml_files, "crowd")
    assert [(item.name, item.box) for item in image.objects] == [("猫", BOX)]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("<annotation>汽车</annotation>".encode("gbk"), "line 1 is not UTF-8"),
        (b"<?xml version='1.0' encoding='klingon'?><annotation/>", "unknown encoding 'klingon'"),
        (b"<?xml version='1.0' encoding='hex'?><annotation/>", "unknown encoding 'hex'"),
        (b"", "not valid XML"),
        (b"<annotation>\0</annotation>", "not valid XML"),
        (
            b"<!DOCTYPE x [<!ENTITY a 'aaaaaaaaaa'>"
            + b"".join(b"<!ENTITY a%d '%s'>" % (i, b"&a%d;" % (i - 1) * 20 if i else b"&a;" * 20) for i in range(9))
            + b"]><annotation>&a8;</annotation>",
            "not valid XML",
        ),
    ],
)
def test_annotations_that_cannot_be_read_are_one_line(tmp_path, content, words):
    write(tmp_path, "1.jpg")
    (tmp_path / "1.xml").write_bytes(content)
    voc = VocFolder(tmp_path)
    with pytest.raises(DatasetError, match=rf"1\.xml: {words}") as caught:
        voc.read(voc.xml_files, "crowd")
    assert "\n" not in str(caught.value)


def test_other_xml_files_are_passed_over_and_counted(tmp_path):
    write(tmp_path, "1.xml", "1.jpg")
    (tmp_path / "project.xml").write_text("<project/>")
    names, lines = convert(tmp_path)
    assert names == {"train": ["1.jpg"]}
    assert lines[1] == "  1 XML file without an annotation (project.xml)"


def test_of_two_images_the_named_one_is_taken(tmp_path):
    root = write(tmp_path, "1.png", "1.jpg", "2.png", "2.jpg")
    (root / "1.xml").write_text(annotation("C:\\old\\1.png"))
    (root / "2.xml").write_text(annotation("other.jpg"))
    names, lines = convert(root)
    assert names == {"train": ["1.png", "2.jpg"]}
    assert lines[1] == "  2 images whose XML file is not used (1.jpg, 2.png)"


def test_an_image_that_is_not_below_its_name_is_found_by_it_alone_if_no_other_has_it(tmp_path):
    write(tmp_path, "Annotations/1.xml", "JPEGImages/a/1.jpg")
    assert convert(tmp_path)[0] == {"train": ["a/1.jpg"]}
    write(tmp_path, "JPEGImages/b/1.jpg")
    with pytest.raises(DatasetError, match=r"1\.xml: no image 1\.\*"):
        convert(tmp_path)
    (tmp_path / "Annotations/1.xml").write_text(annotation("b/1.jpg"))
    assert convert(tmp_path)[0] == {"train": ["b/1.jpg"]}


SPLIT_LAYOUTS = [
    ("images/{}/{}.jpg", "annotations/{}/{}.xml"),
    ("{}/images/{}.jpg", "{}/annotations/{}.xml"),
    ("{}/{}.jpg", "{}/{}.xml"),
]


@pytest.mark.parametrize("layout", SPLIT_LAYOUTS)
def test_numbers_may_begin_anew_in_each_split(tmp_path, layout):
    for split, number in (("train", "001"), ("train", "002"), ("val", "001")):
        write(tmp_path, *(name.format(split, number) for name in layout))
    names, _ = convert(tmp_path)
    found = {split: [Path(name).stem for name in of_split] for split, of_split in names.items()}
    assert found == {"train": ["001", "002"], "val": ["001"]}


@pytest.mark.parametrize("layout", SPLIT_LAYOUTS)
def test_an_annotation_takes_no_image_of_another_split(tmp_path, layout):
    for split, number in (("train", "001"), ("val", "002")):
        write(tmp_path, *(name.format(split, number) for name in layout))
    write(tmp_path, layout[1].format("train", "009"), layout[0].format("test", "009"))
    with pytest.raises(DatasetError, match=r"train.*009\.xml: no image"):
        convert(tmp_path)


def test_the_new_data_set_keeps_folders(tmp_path):
    root = write(tmp_path / "in", "Annotations/day2/1.xml", "JPEGImages/day2/1.jpg")
    voc = VocFolder(root)
    write_splits(tmp_path / "out", {"train": voc.read(voc.xml_files, "crowd")}, ["cat"], copy=True)
    document = json.loads((tmp_path / "out/annotations/instances_train.json").read_text())
    assert [record["file_name"] for record in document["images"]] == ["day2/1.jpg"]
    assert (tmp_path / "out/train/day2/1.jpg").is_file()
