"""VOC and YOLO labels become COCO data that the loader reads, box for box."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

import data.formats.convert
from data import CocoDetection, DatasetError
from data.formats.convert import LabelledImage, LabelledObject, split_at_random, write_splits
from data.formats.voc import VocFolder
from data.formats.yolo import YoloFolder
from data.output_folder import LIST_NAME, OutputError


def voc_object(name="cat", box=(11, 21, 30, 40), difficult=None) -> str:
    corners = "".join(
        f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True) if v is not None
    )
    mark = "" if difficult is None else f"<difficult>{difficult}</difficult>"
    part = "<part><name>ear</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
    return f"<object><name> {name}</name><pose>x</pose>{mark}<bndbox>{corners}</bndbox>{part}</object>"


@pytest.fixture
def voc(tmp_path: Path):
    """voc({name: objects}, size=(width, height) of the XML or None, lists={split: names}) -> folder."""

    def write(files: dict[str, list[str]], size=(64, 48), lists=None, exif=None) -> Path:
        root = tmp_path / "voc"
        for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        tags = Image.Exif()
        if exif:
            tags[0x0112] = exif
        for name, objects in files.items():
            sides = "" if size is None else f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
            text = f"<annotation><filename>C:\\old\\{name}.png</filename>{sides}{''.join(objects)}</annotation>"
            (root / "Annotations" / f"{name}.xml").write_text(text)
            Image.new("RGB", (64, 48)).save(root / "JPEGImages" / f"{name}.jpg", exif=tags)
        for split, names in (lists or {}).items():
            (root / "ImageSets/Main" / f"{split}.txt").write_text("".join(f"{name} 1\n" for name in names))
        return root

    return write


def read(root: Path, difficult="crowd"):
    folder = VocFolder(root)
    return folder.read(folder.xml_files, difficult)


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


@pytest.mark.parametrize("size", [None, (0, 0), (64, 48)])
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
        (["<object>"], (64, 48), r"a\.xml: not valid XML"),
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


def test_images_are_linked_or_copied_and_never_moved(voc, tmp_path):
    root = voc({"a": [voc_object()]})
    for copy in (False, True):
        out = tmp_path / f"out{copy}"
        write_splits(out, {"train": read(root)}, ["cat"], copy)
        image = out / "train" / "a.jpg"
        assert image.is_symlink() is not copy
        assert image.read_bytes() == (root / "JPEGImages/a.jpg").read_bytes()
        written = {"train", "annotations", "a.jpg", "instances_train.json", LIST_NAME}
        assert {path.name for path in out.rglob("*")} == written


def test_an_existing_data_set_is_not_replaced(voc, tmp_path):
    images = read(voc({"a": [voc_object()]}))
    write_splits(tmp_path / "out", {"val": images}, ["cat"], copy=False)
    with pytest.raises(OutputError, match=r"instances_val\.json: exists from before; .* --overwrite"):
        write_splits(tmp_path / "out", {"train": images, "val": images}, ["cat"], copy=False)
    assert not (tmp_path / "out/train").exists()


def test_overwriting_leaves_nothing_of_the_earlier_data_set_and_all_of_the_users(voc, tmp_path):
    out = tmp_path / "out"
    before = read(voc({"a": [voc_object()], "b": [voc_object()]}))
    write_splits(out, {"train": before[:1], "val": before[1:]}, ["cat"], copy=False)
    (out / "val/mine.txt").write_text("mine")
    write_splits(out, {"train": before[1:]}, ["cat"], copy=True, overwrite=True)
    left = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert left == {"train/b.jpg", "val/mine.txt", "annotations/instances_train.json", LIST_NAME}
    assert not (out / "train/b.jpg").is_symlink()
    assert all(image.path.is_file() and not image.path.is_symlink() for image in before)
    (out / "annotations/instances_val.json").write_text("mine")  # once removed, a name is the user's again
    with pytest.raises(OutputError):
        write_splits(out, {"val": before[1:]}, ["cat"], copy=False)
    assert (out / "annotations/instances_val.json").read_text() == "mine"


@pytest.mark.parametrize("copy", [False, True])
@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("way", ["direct", "linked output", "linked images", "hard links"])
def test_converting_in_place_never_touches_an_image(voc, tmp_path, copy, overwrite, way):
    root = voc({"a": [voc_object()], "b": [voc_object()]})
    root.joinpath("JPEGImages").rename(tmp_path / "train")
    root.joinpath("JPEGImages").symlink_to(tmp_path / "train")
    out, images = tmp_path, read(root)
    if way == "linked output":
        out = tmp_path / "out"
        out.mkdir()
        (out / "train").symlink_to(tmp_path / "train")
    elif way == "linked images":
        out = tmp_path / "out"
        out.mkdir()
        for name in ("a.jpg", "b.jpg"):
            (tmp_path / "train" / name).rename(tmp_path / name)
            (tmp_path / "train" / name).symlink_to(tmp_path / name)
        (tmp_path / "train").rename(out / "train")
        (tmp_path / "train").symlink_to(out / "train")
    elif way == "hard links":
        out = tmp_path / "out"
        (out / "train").mkdir(parents=True)
        for name in ("a.jpg", "b.jpg"):
            (out / "train" / name).hardlink_to(tmp_path / "train" / name)
    before = {image.path: image.path.read_bytes() for image in images}
    with pytest.raises(OutputError):
        write_splits(out, {"train": images}, ["cat"], copy, overwrite)
    assert {path: path.read_bytes() for path in before} == before
    assert not (out / "annotations").exists()


def test_images_that_lead_into_the_output_are_not_replaced(voc, tmp_path):
    out = tmp_path / "out"
    (image,) = read(voc({"a": [voc_object()]}))
    write_splits(out, {"train": [image]}, ["cat"], copy=True)
    content = image.path.read_bytes()
    image.path.unlink()
    image.path.symlink_to(out / "train/a.jpg")  # the copy is now the only one
    for copy in (False, True):
        with pytest.raises(OutputError, match="is read for what would be written"):
            write_splits(out, {"train": [image]}, ["cat"], copy, overwrite=True)
    assert image.path.read_bytes() == content


def test_a_conversion_that_was_interrupted_is_done_again(voc, tmp_path, monkeypatch):
    out, images = tmp_path / "out", read(voc({name: [voc_object()] for name in "abc"}))
    place, done = data.formats.convert.place, []

    def interrupted(*arguments):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(place(*arguments))

    with monkeypatch.context() as patch:
        patch.setattr(data.formats.convert, "place", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_splits(out, {"train": images}, ["cat"], copy=True)
    assert not (out / "annotations").exists()
    write_splits(out, {"train": images}, ["cat"], copy=True, overwrite=True)
    assert len(CocoDetection(out, "train")) == 3


def test_random_splits_depend_on_names_and_seed_alone():
    paths = [Path(f"/data/{index:03}.xml") for index in range(50)]
    splits = split_at_random(paths, {"val": 0.2, "test": 0.1}, seed=3)
    assert {split: len(files) for split, files in splits.items()} == {"train": 35, "val": 10, "test": 5}
    assert sorted(path for files in splits.values() for path in files) == paths
    assert split_at_random(paths[::-1], {"val": 0.2, "test": 0.1}, seed=3) == splits
    assert split_at_random(paths, {"val": 0.2, "test": 0.1}, seed=4) != splits
    with pytest.raises(DatasetError, match="too few"):
        split_at_random(paths[:2], {"val": 0.2, "test": 0}, seed=0)
    with pytest.raises(DatasetError, match="shares"):
        split_at_random(paths, {"val": 0.6, "test": 0.4}, seed=0)


@pytest.fixture
def yolo(tmp_path: Path):
    """yolo({"train/images/a.jpg": lines of its label file, or None for no file}, data_yaml) -> folder."""

    def write(files: dict[str, list[str] | None], data_yaml: str | None) -> Path:
        root = tmp_path / "yolo"
        for name, lines in files.items():
            image = root / name
            labels = Path(*["labels" if part == "images" else part for part in image.parts]).with_suffix(".txt")
            for path in (image, labels):
                path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (200, 100)).save(image)
            if lines is not None:
                labels.write_text("\n".join(lines) + "\n")
        if data_yaml is not None:
            (root / "data.yaml").write_text(data_yaml)
        return root

    return write


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


def test_two_images_of_one_name_are_refused(tmp_path):
    images = [LabelledImage(tmp_path / name, "a.jpg", (9, 9), [LabelledObject("cat", (0, 0, 1, 1))]) for name in "xy"]
    with pytest.raises(DatasetError, match="rename one"):
        write_splits(tmp_path / "out", {"train": images}, ["cat"], copy=False)
    assert not (tmp_path / "out").exists()


def test_images_without_any_object_are_refused(yolo, tmp_path):
    folder = YoloFolder(yolo({"images/a.jpg": [], "images/b.jpg": None}, "names: [cat]"))
    with pytest.raises(DatasetError, match="not one of 2 images has a labelled object"):
        write_splits(tmp_path / "out", {"train": folder.read(folder.all_images())}, ["cat"], copy=False)
