"""scripts/import_coco.py: COCO files as tools export them become a data set; annotations stay as they are."""

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from data import CocoDetection
from scripts.import_coco import main

CLASSES = [{"id": 3, "name": "cat", "supercategory": "animal"}, {"id": 8, "name": "dog", "supercategory": "animal"}]
PARENT = {"id": 0, "name": "animal", "supercategory": "none"}


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """call(arguments …) -> what it printed; the data set is written to out/."""

    def run(*arguments: object) -> str:
        line = ["import_coco.py", *arguments, "--output", tmp_path / "out"]
        monkeypatch.setattr(sys, "argv", list(map(str, line)))
        main()
        return capsys.readouterr().out

    return run


@pytest.fixture
def refused(call, capsys, tmp_path):
    """refused(arguments …) -> the `error:` line; nothing may have been written."""

    def run(*arguments: object) -> str:
        with pytest.raises(SystemExit) as stop:
            call(*arguments)
        (line,) = capsys.readouterr().err.splitlines()
        assert stop.value.code == 2 and line.startswith("error: ") and not (tmp_path / "out").exists()
        return line

    return run


def export(file: Path, folder: Path, names: list[str], written=str, categories=CLASSES) -> dict:
    """Writes a COCO file and its images, an object each, of both classes in turn; `written` makes the `file_name`."""
    images, annotations = [], []
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (number, 0, 0)).save(folder / name)
        images.append({"id": 100 + number, "file_name": written(name), "width": 40, "height": 30, "license": 7})
        box = {"bbox": [1 + number, 2, 10, 12], "area": 60.5, "segmentation": [[1, 2, 11, 2, 11, 14]], "iscrowd": 0}
        category = CLASSES[number % 2]["id"]
        annotations.append({"id": 500 + number, "image_id": 100 + number, "category_id": category, **box})
    document = {"info": {"by": "me"}, "images": images, "annotations": annotations, "categories": categories}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(document))
    return document


def written(tmp_path: Path, split: str) -> dict:
    return json.loads((tmp_path / f"out/annotations/instances_{split}.json").read_text())


def sizes(tmp_path: Path) -> dict[str, int]:
    files = sorted((tmp_path / "out/annotations").iterdir())
    return {file.stem.removeprefix("instances_"): len(json.loads(file.read_text())["images"]) for file in files}


@pytest.mark.parametrize("parent", ["animal", "cat"])  # Roboflow's may have the name of a class
def test_splits_of_folders_and_a_parent_that_is_no_class(call, tmp_path, parent):
    categories = [PARENT | {"name": parent}, *(each | {"supercategory": parent} for each in CLASSES)]
    for folder, names in (("train", ["a.jpg", "b.jpg", "c.jpg"]), ("valid", ["d.jpg", "e.jpg"]), ("test", ["f.jpg"])):
        root = tmp_path / "exported" / folder
        export(root / "_annotations.coco.json", root, names, categories=categories)
    output = call(tmp_path / "exported")
    assert sizes(tmp_path) == {"train": 3, "val": 2, "test": 1}
    assert f"'{parent}'" in output and "2 classes: cat, dog" in output
    data = CocoDetection(tmp_path / "out", "val")
    assert data.class_names == ["cat", "dog"] and [data.path(i).name for i in range(2)] == ["d.jpg", "e.jpg"]
    image, target = data[1]
    assert image.shape == (3, 30, 40) and target["boxes"].tolist() == [[2, 2, 12, 14]]
    assert target["labels"].tolist() == [1]


@pytest.mark.parametrize("with_object", [0, 1])
def test_a_parent_with_an_object_is_a_class(call, tmp_path, with_object):
    root = tmp_path / "exported"
    categories = [PARENT, *CLASSES]
    documents = [
        export(root / f"{name}.json", root, [f"{name}.jpg"], categories=categories) for name in ("train", "val")
    ]
    documents[with_object]["annotations"][0]["category_id"] = 0
    for name, document in zip(("train", "val"), documents, strict=True):
        (root / f"{name}.json").write_text(json.dumps(document))
    assert "3 classes: animal, cat, dog" in call(root)


def test_a_single_file_is_split_and_nothing_of_it_is_lost(call, tmp_path):
    names = [f"{number:02}.jpg" for number in range(20)]
    file, photos = tmp_path / "labels/train.json", tmp_path / "elsewhere/photos"
    before = export(file, photos, names)
    output = call(file, "--images", photos, "--val", "0.2", "--test", "0.1", "--seed", "3")
    assert sizes(tmp_path) == {"train": 14, "val": 4, "test": 2}
    assert "--val 0.2 --test 0.1 --seed 3" in output
    parts = [written(tmp_path, split) for split in ("train", "val", "test")]
    for section in ("images", "annotations"):
        records = [record for part in parts for record in part[section]]
        assert sorted(records, key=lambda record: record["id"]) == before[section]
    assert all(part["info"] == before["info"] and part["categories"] == CLASSES for part in parts)
    for part in parts:
        ids = {record["id"] for record in part["images"]}
        assert {record["image_id"] for record in part["annotations"]} == ids
    assert json.loads(file.read_text()) == before and len(list(photos.iterdir())) == 20
    for split, part in zip(("train", "val", "test"), parts, strict=True):
        assert sorted(path.name for path in (tmp_path / "out" / split).iterdir()) == [
            record["file_name"] for record in part["images"]
        ]
    again = [path.read_bytes() for path in sorted((tmp_path / "out/annotations").iterdir())]
    call(file, "--images", photos, "--val", "0.2", "--test", "0.1", "--seed", "3", "--overwrite")
    assert again == [path.read_bytes() for path in sorted((tmp_path / "out/annotations").iterdir())]
    call(file, "--images", photos, "--val", "0.2", "--seed", "4", "--overwrite")
    assert sizes(tmp_path) == {"train": 16, "val": 4} and not list((tmp_path / "out/test").iterdir())


def test_records_of_one_image_stay_together(call, tmp_path):
    document = export(tmp_path / "in/labels.json", tmp_path / "in", ["a.jpg", "b.jpg"])
    images = [record | {"id": 1000 * copy + record["id"]} for copy in range(5) for record in document["images"]]
    (tmp_path / "in/labels.json").write_text(json.dumps(document | {"images": images}))
    call(tmp_path / "in", "--val", "0.5")
    assert sizes(tmp_path) == {"train": 5, "val": 5}


@pytest.mark.parametrize("folder", ["images", "images/default", "."])
def test_images_are_looked_for_beside_and_below(call, tmp_path, folder):
    export(tmp_path / "in/annotations/instances_default.json", tmp_path / "in" / folder, ["a.jpg", "b/c.jpg"])
    call(tmp_path / "in", "--val", "0.5")
    call(tmp_path / "in/annotations/instances_default.json", "--val", "0.5", "--overwrite")
    for split in ("train", "val"):
        assert CocoDetection(tmp_path / "out", split)[0][0].shape == (3, 30, 40)


def test_images_of_one_name_are_those_of_their_split(call, tmp_path):
    for split, count in (("Train", 2), ("Validation", 1)):
        names = [f"{number}.png" for number in range(count)]
        export(tmp_path / f"in/annotations/instances_{split}.json", tmp_path / "in/images" / split, names)
    (tmp_path / "in/captions.json").write_text('{"images": [], "annotations": []}')
    output = call(tmp_path / "in")
    assert (tmp_path / "out/train").resolve() == tmp_path / "in/images/Train"
    assert (tmp_path / "out/val").resolve() == tmp_path / "in/images/Validation"
    assert "1 JSON file of another kind" in output and "captions.json" in output


@pytest.mark.parametrize(
    "path", ["images\\{}", "../../label-studio/data/upload/1/{}", "C:\\photos\\{}", "/home/somebody/photos/{}"]
)
def test_names_of_another_machine(call, tmp_path, path):
    export(tmp_path / "in/result.json", tmp_path / "in/images", ["a.png", "b.png"], written=path.format)
    output = call(tmp_path / "in", "--val", "0.5")
    assert "by the last parts of their names: 2 images" in output
    assert {CocoDetection(tmp_path / "out", split).path(0).name for split in ("train", "val")} == {"a.png", "b.png"}
    assert CocoDetection(tmp_path / "out", "val")[0][0].shape == (3, 30, 40)


def test_val_is_drawn_from_train_where_there_is_none(call, tmp_path):
    for split, count in (("train2017", 10), ("test2017", 3)):
        names = [f"{split}/{number}.jpg" for number in range(count)]
        export(tmp_path / f"in/instances_{split}.json", tmp_path / "in", names)
    assert "val drawn at random from train" in call(tmp_path / "in")
    assert sizes(tmp_path) == {"train": 8, "val": 2, "test": 3}
    assert len({each["file_name"] for split in ("train", "val") for each in written(tmp_path, split)["images"]}) == 10


def test_entries_that_cannot_be_used_are_counted(call, tmp_path, caplog):
    document = export(tmp_path / "in/labels.json", tmp_path / "in", [f"{number}.jpg" for number in range(4)])
    del document["annotations"][2]["bbox"]
    (tmp_path / "in/labels.json").write_text(json.dumps(document))
    call(tmp_path / "in", "--val", "0.25")
    assert "left out 1 of annotations: 'bbox' must be four numbers" in caplog.text
    assert sum(len(written(tmp_path, split)["annotations"]) for split in ("train", "val")) == 3


def test_exports_put_together_whose_ids_restart_are_refused(refused, tmp_path):
    file = tmp_path / "in/labels.json"
    document = export(file, tmp_path / "in", [f"{number}.jpg" for number in range(8)])
    for section, key in (("images", "id"), ("annotations", "image_id")):
        for number, record in enumerate(document[section]):
            record[key] = number % 4 + 1
    file.write_text(json.dumps(document))
    line = refused(tmp_path / "in")
    assert f"{file}: images[4] (id 1): this id is also that of images[0], another file (0.jpg)" in line
    assert "import the exports one by one" in line


@pytest.mark.parametrize(
    ("boxes", "words"),
    [
        ([[20 + i, 15, 40, 30] for i in range(5)], "look like corners x1, y1, x2, y2: as x, y, width, height 5 of 5"),
        ([[0.1, 0.2, 0.3, 0.4]] * 5, "fractions of the image's sides"),
    ],
)
def test_boxes_of_another_form_are_refused(refused, tmp_path, boxes, words):
    file = tmp_path / "in/labels.json"
    document = export(file, tmp_path / "in", [f"{number}.jpg" for number in range(5)])
    for record, box in zip(document["annotations"], boxes, strict=True):
        record["bbox"] = box
    file.write_text(json.dumps(document))
    assert words in refused(tmp_path / "in")


def test_categories_of_one_id_are_refused(refused, tmp_path):
    export(tmp_path / "in/labels.json", tmp_path / "in", ["a.jpg"], categories=[CLASSES[0], CLASSES[1] | {"id": 3}])
    assert "categories[1] (id 3): id 3 occurs more than once; give each category its own id" in refused(tmp_path / "in")


def test_what_cannot_be_told_is_refused(refused, tmp_path):
    root = tmp_path / "in"
    assert "no such file or folder" in refused(root)
    root.mkdir()
    (root / "other.json").write_text("[]")
    assert "none of 1 JSON file has the lists" in refused(root)
    export(root / "first.json", root, ["a.jpg"])
    export(root / "train.json", root, ["b.jpg"])
    line = refused(root)
    assert "first.json" in line and "name one file alone" in line
    (root / "first.json").rename(root / "train_2.json")
    assert "both are of train" in refused(root)
    (root / "train_2.json").rename(root / "val_2.json")
    (root / "train.json").rename(root / "test.json")
    assert "no COCO file of train" in refused(root)


def test_images_that_are_not_there_are_refused(refused, tmp_path):
    names = ["a.jpg", "b.jpg", "c.jpg"]
    file, photos = tmp_path / "in/labels/all.json", tmp_path / "elsewhere"
    export(file, photos, names)
    assert "name the folder by --images" in refused(file)
    (photos / "b.jpg").unlink()
    assert "1 of its 3 images are not in" in refused(file, "--images", photos)
    export(file, tmp_path / "in/pictures", names)
    export(file, tmp_path / "in/thumbnails", names)
    line = refused(tmp_path / "in")
    assert "pictures" in line and "thumbnails" in line and "--images" in line


def test_a_split_without_its_images_takes_none_of_another(refused, tmp_path):
    for split in ("train", "val"):
        export(tmp_path / f"in/annotations/instances_{split}.json", tmp_path / f"in/images/{split}", ["1.jpg"])
    (tmp_path / "in/images/train/1.jpg").unlink()
    line = refused(tmp_path / "in")
    assert "instances_train.json" in line and "no folder near" in line


def test_both_slashes_are_one_name(call, tmp_path):
    document = export(tmp_path / "in/labels.json", tmp_path / "in", ["a/1.jpg", "a/2.jpg"])
    document["images"].append(document["images"][1] | {"id": 7, "file_name": "a\\2.jpg"})
    (tmp_path / "in/labels.json").write_text(json.dumps(document))
    (tmp_path / "in/notes.json").touch()  # which no COCO file is
    call(tmp_path / "in", "--val", "0.5")
    assert sorted(sizes(tmp_path).values()) == [1, 2]


@pytest.mark.parametrize("name", [None, ["animal"]])
def test_a_parent_without_a_name_is_refused_as_any_category(refused, tmp_path, name):
    categories = [PARENT | {"name": name}, *(each | {"supercategory": name} for each in CLASSES)]
    export(tmp_path / "in/labels.json", tmp_path / "in", ["a.jpg", "b.jpg"], categories=categories)
    assert "'name' must be a string" in refused(tmp_path / "in")


def test_two_names_are_never_one_image(refused, tmp_path):
    file = tmp_path / "in/labels.json"
    document = export(file, tmp_path / "in", ["a.jpg", "b.jpg"])
    document["images"][0]["file_name"], document["images"][1]["file_name"] = "/one/a.jpg", "/two/a.jpg"
    file.write_text(json.dumps(document))
    line = refused(file)
    assert "/one/a.jpg and /two/a.jpg" in line


def test_nothing_of_the_users_is_replaced(call, capsys, tmp_path):
    export(tmp_path / "in/labels.json", tmp_path / "in", [f"{number}.jpg" for number in range(10)])
    (tmp_path / "out/val").mkdir(parents=True)
    mine = [tmp_path / f"out/val/{number}.jpg" for number in range(10)]
    for path in mine:
        path.write_text("mine")
    for more in ([], ["--overwrite"]):
        with pytest.raises(SystemExit):
            call(tmp_path / "in", *more)
        assert ".jpg: exists and was not written there" in capsys.readouterr().err
    assert sorted(path for path in (tmp_path / "out").rglob("*") if path.is_file()) == mine
    assert {path.read_text() for path in mine} == {"mine"}
