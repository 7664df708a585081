"""YOLO folders as other tools write them: everything that can be read is, and the rest is counted."""

import unicodedata
from pathlib import Path

import pytest
from PIL import Image
from yolo_files import ROW, convert, described, write

from data.errors import DatasetError
from data.formats.convert import write_splits
from data.formats.yolo import YoloFolder


@pytest.mark.parametrize(
    "names",
    [
        ("images/a.jpg", "labels/a.txt"),
        ("Images/a.jpg", "Labels/a.txt"),
        ("images/x/a.JPG", "labels/x/a.TXT"),
        ("train/images/a.jfif", "train/labels/a.txt"),
        ("images/a.jpe", "images/a.txt"),
        ("a.gif", "a.txt"),
        ("images/images/a.jpg", "images/labels/a.txt"),
        ("images/images/a.jpg", "labels/images/a.txt"),
    ],
)
def test_labels_are_found_where_tools_put_them(tmp_path, names):
    found, lines = convert(write(tmp_path, *names, classes="cat\n"))
    assert list(found["train"].values()) == [1]
    assert lines == ["files: 3 seen = 3 used + 0 left out"]


def test_every_file_is_used_or_left_out_for_a_reason(tmp_path):
    write(tmp_path, "images/train/a.jpg", "images/train/b.jpg", "images/val/c.jpg", "images/rest/d.jpg")
    write(tmp_path, "labels/train/a.txt", "labels/val/c.txt", "annots/e.txt", "notes.csv", "images/train/._a.jpg")
    write(tmp_path, "images/train/.ipynb_checkpoints/a-checkpoint.jpg", "labels/train/.hidden.txt")
    described(tmp_path, "train: [images/train, images/train/a.jpg]\nval: images/val\nnames: [cat]\n")
    found, lines = convert(tmp_path)
    assert found == {"train": {"a.jpg": 1, "b.jpg": 0}, "val": {"c.jpg": 1}}
    assert lines == [
        "files: 9 seen = 6 used + 3 left out",
        "  1 file of another kind (notes.csv)",
        "  1 image in no split (images/rest/d.jpg)",
        "  1 text file of no image (annots/e.txt)",
        "train: listed twice, and counted once: 1 image",
    ]


def test_splits_without_objects_and_splits_that_share_images_are_said(tmp_path):
    write(tmp_path, "images/a.jpg", "images/none/b.jpg", "labels/a.txt")
    described(tmp_path, "train: images\nval: images\ntest: images/none\nnames: [cat]\n")
    _, lines = convert(tmp_path)
    assert "test: not one of its 1 image has an object" in lines
    assert "in more than one of the splits train, val, test: 2 images" in lines


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("names: [yes, no, on, off]", ["yes", "no", "on", "off"]),
        ("names: [007, 1e3, null, 'no']", ["007", "1e3", "null", "no"]),
        ("names: {1: b, 0: a}", ["a", "b"]),
        ("names:\n  '0': a\n  1: yes\n", ["a", "yes"]),
        ("names: [ ' a b ' ]", ["a b"]),
    ],
)
def test_class_names_are_text_as_it_is_written(tmp_path, text, names):
    assert YoloFolder(described(tmp_path, text)).class_names == names


@pytest.mark.parametrize(
    "text",
    ["{0: box, one: disc}", "{0: a, 2: b}", "{0: a, 00: b}", "{-1: a}", "[a, [b]]", "[a, '']", "cat", "{0: {a: b}}"],
)
def test_class_names_that_are_no_list_are_one_line(tmp_path, text):
    with pytest.raises(DatasetError, match=r"data\.yaml: names: needs a list of class names"):
        YoloFolder(described(tmp_path, f"names: {text}"))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
def test_texts_of_other_systems(tmp_path, encoding):
    write(tmp_path, "images/a.jpg", "labels/a.txt", "images/Ü b.jpg", "labels/Ü b.txt")
    for name, text in {
        "labels/a.txt": ROW,
        "classes.txt": "cät\n",
        "data.yaml": "train: list.txt\nnames: [cät]",
        "list.txt": "images/a.jpg\r\nimages/Ü b.jpg\r\n",
    }.items():
        (tmp_path / name).write_bytes(text.encode(encoding))
    for name in ("data.yaml", "list.txt"):
        assert YoloFolder(tmp_path).class_names == ["cät"]
        assert convert(tmp_path)[0] == {"train": {"a.jpg": 1, "Ü b.jpg": 1}}
        (tmp_path / name).unlink()


@pytest.mark.parametrize("name", ["classes.txt", "labels/a.txt", "list.txt", "data.yaml"])
def test_texts_in_other_encodings_are_one_line(tmp_path, name):
    write(tmp_path, "images/a.jpg", "labels/a.txt")
    (tmp_path / "list.txt").write_text("images/a.jpg")
    (tmp_path / name).write_bytes("汽车".encode("gbk"))
    if name != "classes.txt" and name != "data.yaml":
        described(tmp_path, "train: list.txt\nnames: [cat]")
    with pytest.raises(DatasetError, match=rf"{Path(name).name}: line 1 is not UTF-8"):
        convert(tmp_path)


def test_keypoints_are_no_polygon(tmp_path):
    write(tmp_path, "images/a.jpg", "images/b.jpg", "labels/b.txt")
    described(tmp_path, "names: [cat]\nkpt_shape: [2, 3]")
    (tmp_path / "labels/a.txt").write_text("0 0.5 0.5 0.5 0.5 0.1 0.2 2 0 0 0\n")
    assert convert(tmp_path)[0] == {"train": {"a.jpg": 1, "b.jpg": 1}}
    (tmp_path / "labels/a.txt").write_text("0 0.5 0.5 0.5 0.5 0.1 0.2 0.3 0.4\n")
    with pytest.raises(DatasetError, match=r"a\.txt: line 1: needs .*6 numbers of keypoints \(kpt_shape\)"):
        convert(tmp_path)
    with pytest.raises(DatasetError, match="kpt_shape: needs two numbers"):
        YoloFolder(described(tmp_path, "names: [cat]\nkpt_shape: 17"))


@pytest.mark.parametrize(
    "lists",
    [
        {"obj.data": "classes = 1\ntrain = data/train.txt\nvalid=data/valid.txt\nnames = data/obj.names\n"},
        {},
    ],
)
def test_darknet_exports(tmp_path, lists):
    write(tmp_path, *(f"obj_train_data/{name}.{suffix}" for name in "ab" for suffix in ("jpg", "txt")))
    write(tmp_path, "obj_Validation_data/c.jpg", "obj_Validation_data/c.txt")
    write(tmp_path, train="data/obj_train_data/a.jpg\ndata/obj_train_data/b.jpg\n")
    write(tmp_path, valid="data\\obj_Validation_data\\c.jpg\n")
    for name, text in {"obj.names": "cat\n", **lists}.items():
        described(tmp_path, text, name)
    found, lines = convert(tmp_path)
    assert found == {"train": {"a.jpg": 1, "b.jpg": 1}, "val": {"c.jpg": 1}}
    assert lines[0] == f"files: {9 + len(lists)} seen = {9 + len(lists)} used + 0 left out"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("images/train", False),
        ("./images/train/", False),
        ("images\\train", False),
        ("../images/train", True),
        ("/content/gone/images/train", True),
        ("C:\\data\\images\\train", True),
    ],
)
def test_paths_of_other_machines_are_found_by_their_last_parts_and_said(tmp_path, source, said):
    root = write(tmp_path / "in", "images/train/a.jpg", "labels/train/a.txt")
    described(root, f"train: '{source}'\nval: null\ntest:\npath: ~\nnames: [cat]")
    found, lines = convert(root)
    assert found == {"train": {"a.jpg": 1}}
    assert any("is read in its place" in line for line in lines) == said


def test_lines_of_another_machine_are_one_note_a_list(tmp_path):
    write(tmp_path, *(f"images/{name}.jpg" for name in "abc"), "images/a.txt")
    write(tmp_path, mixed="images/a.jpg\n/gone/images/b.jpg\nC:\\gone\\images\\c.jpg\n", here="./images/a.jpg\n")
    described(tmp_path, "train: mixed.txt\nval: here.txt\nnames: [cat]")
    found, lines = convert(tmp_path)
    assert found["train"].keys() == {"a.jpg", "b.jpg", "c.jpg"}
    assert [line for line in lines if "in its place" in line] == [
        f"{tmp_path}/mixed.txt: not where it says, and found elsewhere: 2 images, the first /gone/images/b.jpg; "
        f"{tmp_path}/images/b.jpg is read in its place"
    ]


def test_images_that_share_a_label_file_are_one_note_a_split(tmp_path):
    write(tmp_path, *(f"train/{name}" for name in ("a.jpg", "a.png", "a.txt", "b.jpg", "b.png", "c.jpg", "c.txt")))
    write(tmp_path, "images/val/d.jpg", "images/val/d.gif", "images/val/d.bmp", "labels/val/d.txt", "images/val/e.jpg")
    described(tmp_path, "train: train\nval: images/val\nnames: [cat]")
    assert [line for line in convert(tmp_path)[1] if "label file" in line] == [
        f"train: 2 images share a label file with another, as a.jpg and a.png do: {tmp_path}/train/a.txt",
        f"val: 3 images share a label file with another, as d.bmp and d.gif do: {tmp_path}/labels/val/d.txt",
    ]


def test_what_is_named_and_not_there_is_one_line(tmp_path):
    write(tmp_path, "images/a.jpg", gone="images/a.jpg\nimages/b.jpg\n", empty="\n")
    with pytest.raises(
        DatasetError, match=r"data\.yaml: val: images/gone: no such folder or list .*; put it there, or"
    ):
        convert(described(tmp_path, "train: images\nval: images/gone\nnames: [cat]"))
    with pytest.raises(DatasetError, match=r"gone\.txt: lists images/b\.jpg, and there is no such image"):
        convert(described(tmp_path, "train: gone.txt\nnames: [cat]"))
    with pytest.raises(DatasetError, match=r"empty\.txt: lists no image; put .* there, or remove"):
        convert(described(tmp_path, "train: empty.txt\nnames: [cat]"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"data\.yaml: train: no images in .*empty .*; put them there, or remove"):
        convert(described(tmp_path, "train: empty\nnames: [cat]"))
    with pytest.raises(DatasetError, match="no such folder"):
        YoloFolder(tmp_path / "nowhere")


def test_names_in_the_new_data_set_are_distinct_and_keep_their_folders(tmp_path):
    names = [
        f"{part}/{folder}/1.{suffix}" for part, suffix in (("images", "jpg"), ("labels", "txt")) for folder in "xy"
    ]
    write(tmp_path, *names)
    for text, expected in (
        ("train: images", {"x/1.jpg", "y/1.jpg"}),
        ("train: [images/x, images/y]", {"x/1.jpg", "y/1.jpg"}),
        ("train: images/x", {"1.jpg"}),
    ):
        assert set(convert(described(tmp_path, f"{text}\nnames: [cat]"))[0]["train"]) == expected


def test_linked_folders_and_files_count_once_and_circles_end(tmp_path):
    root = write(tmp_path / "root", "images/train/a.jpg", "labels/train/a.txt", "ext/images/b.jpg", "ext/labels/b.txt")
    (root / "images/train/more").symlink_to(root / "ext/images")
    (root / "images/train/again").symlink_to(root / "images/train")
    (root / "images/train/z.jpg").symlink_to("a.jpg")
    described(root, "train: images/train\nnames: [cat]")
    found, lines = convert(root)
    assert found == {"train": {"a.jpg": 1, "more/b.jpg": 1}}
    assert lines[0] == "files: 5 seen = 5 used + 0 left out"


@pytest.mark.parametrize("output", [".", "out"])
def test_an_earlier_conversion_inside_the_folder_is_no_input(tmp_path, output):
    root = write(tmp_path, "a.jpg", "a.txt", classes="cat\n")
    for copy in (True, False, True):
        yolo = YoloFolder(root, root / output)
        assert yolo.all_images() == [root / "a.jpg"]
        write_splits(root / output, {"train": yolo.read(yolo.all_images())}, ["cat"], copy, overwrite=True)
    assert convert(root, root / output)[1] == ["files: 3 seen = 3 used + 0 left out"]


@pytest.mark.parametrize("name", ["data.yml", "coco128.yaml"])
def test_descriptions_of_other_names(tmp_path, name):
    write(tmp_path, "images/a.jpg", "labels/a.txt")
    assert convert(described(tmp_path, "train: images\nvalid: images\nnames: [cat]", name))[0].keys() == {
        "train",
        "val",
    }


def test_two_splits_do_not_fall_back_to_one_folder(tmp_path):
    described(write(tmp_path, "images/a.jpg", "labels/a.txt"), "train: train/images\nval: valid/images\nnames: [cat]")
    with pytest.raises(DatasetError, match=r"train/images and valid/images are not there, and .*images would be read"):
        convert(tmp_path)
    for train, val in (("images", "../valid/images"), ("../train/images", "images")):
        described(tmp_path, f"train: {train}\nval: {val}\nnames: [cat]")
        with pytest.raises(DatasetError, match=r"\.\./(valid|train)/images is not there, and .*images would be read"):
            convert(tmp_path)
    described(tmp_path, "train: images\nval: ./images\nnames: [cat]")  # in two spellings
    assert convert(tmp_path)[0] == {"train": {"a.jpg": 1}, "val": {"a.jpg": 1}}
    described(tmp_path, "train: train/images\nval: train/images\nnames: [cat]")  # as wanted
    assert convert(tmp_path)[0] == {"train": {"a.jpg": 1}, "val": {"a.jpg": 1}}


def test_letters_that_macos_takes_apart_are_the_same_letters(tmp_path):
    apart, whole = (unicodedata.normalize(form, "사진é") for form in ("NFD", "NFC"))
    assert apart != whole
    described(write(tmp_path, f"images/{apart}.jpg", f"labels/{whole}.txt"), "names: [cat]")
    assert convert(tmp_path)[0] == {"train": {f"{apart}.jpg": 1}}


def test_names_that_differ_in_such_letters_alone_have_labels_of_their_own(tmp_path):
    apart, whole = (unicodedata.normalize(form, "é") for form in ("NFD", "NFC"))
    write(tmp_path, *(f"{folder}/{name}" for name in (apart, whole) for folder in ("images", "labels")))
    for name, label in ((apart, 0), (whole, 1)):
        Image.new("RGB", (16, 12)).save(tmp_path / f"images/{name}.jpg")
        (tmp_path / f"labels/{name}.txt").write_text(f"{label} 0.5 0.5 0.5 0.5")
    described(tmp_path, "names: [cat, dog]")
    folder = YoloFolder(tmp_path)
    read = {image.file_name: image.objects[0].name for image in folder.read(folder.all_images())}
    assert read == {f"{apart}.jpg": "cat", f"{whole}.jpg": "dog"}
