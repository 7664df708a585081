"""scripts/check_dataset.py: what it finds in broken data, what it counts, and its exit status."""

import json
import runpy
import sys

import numpy as np
import pytest
from PIL import Image

SCRIPT = "scripts/check_dataset.py"


@pytest.fixture
def check(monkeypatch, capfd):
    """check(arguments …) -> (exit status, what it printed, its errors)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [SCRIPT, *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(SCRIPT, run_name="__main__")
        said = capfd.readouterr()
        return stop.value.code, said.out, said.err

    return run


@pytest.fixture
def write(tmp_path):
    """write(annotations, images) -> root of a data set with one split, `train`, of 64×48 images."""

    def run(annotations: list[dict], images: list[dict], categories=("cat", "dog")):
        for folder in ("annotations", "train"):
            (tmp_path / folder).mkdir()
        for record in images:
            record.setdefault("height", 48)
            record.setdefault("width", 64)
            if record["file_name"].startswith("good"):
                Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(tmp_path / "train" / record["file_name"])
        names = [{"id": 3 * i, "name": name} for i, name in enumerate(categories)]
        document = {"images": images, "annotations": annotations, "categories": names}
        (tmp_path / "annotations/instances_train.json").write_text(json.dumps(document))
        return tmp_path

    return run


@pytest.mark.filterwarnings("error")  # of letters that no font has
def test_class_names_are_no_mathematics(check, write, tmp_path):
    annotation = {"id": 1, "image_id": 1, "category_id": 0, "bbox": [4, 4, 30, 30], "area": 900, "iscrowd": 0}
    root = write([annotation], [{"id": 1, "file_name": "good.png"}], categories=("$_$", "\U00012000"))
    check("--root", root, "--split", "train", "data.image_size=64", "--picture", tmp_path / "sizes.png")
    assert (tmp_path / "sizes.png").stat().st_size > 10_000


def test_sound_data_gives_status_0_counts_and_a_picture(check, shapes, tmp_path):
    picture = tmp_path / "sizes.png"
    arguments = ("--root", shapes, "--split", "train", "--split", "val", "data.image_size=64", "--picture", picture)
    status, out, _ = check(*arguments)
    assert status == 0, out
    document = json.loads((shapes / "annotations/instances_train.json").read_text())
    assert f"12 images (0 without objects), {len(document['annotations'])} objects" in out
    assert out.count("No problems.") == 2
    assert "resized to 64×64" in out
    assert Image.open(picture).size[0] > 1000


def test_objects_that_no_anchor_overlaps_by_half_are_counted_by_class_and_in_all(check, write):
    # anchors of 8, 11 and 16 … pixels at ratios ½ to 2: a stripe of 60×4 fits none, a square of 32×32 around the
    # centre of an image of 64×64 (four cells of 32 pixels, centres at 16 and 48) those of 32 pixels at stride 8
    cat = {"image_id": 1, "category_id": 0, "bbox": [12, 12, 32, 32], "area": 1024, "iscrowd": 0}
    dog = {"image_id": 1, "category_id": 3, "bbox": [2, 20, 60, 4], "area": 240, "iscrowd": 0}
    annotations = [
        {**record, "id": number} for number, record in enumerate((cat, dog, dog | {"bbox": [2, 30, 60, 4]}), 1)
    ]
    root = write(annotations, [{"id": 1, "file_name": "good.jpg"}])
    options = ("data.augmentation=crop", "model.anchor_base_scale=2")
    _, out, _ = check("--root", root, "--split", "train", *options)
    assert out.count("their own size") == 1
    rows = {line.split()[0]: line.split()[-1] for line in out.splitlines() if line.startswith(("  cat", "  dog"))}
    assert rows == {"cat": "0.0%", "dog": "100.0%"}
    assert "No anchor has an IoU of ½ or more with 66.7% of the objects." in out


def test_every_problem_is_listed_with_its_count(check, write):
    box = [5, 5, 20, 20]

    def annotation(**changes):
        return {"id": 1, "image_id": 1, "category_id": 0, "bbox": box, **changes}

    bad_boxes = ([5, 5, 0, 3], [5, 5, 3, -1], [70, 5, 3, 3], [float("nan"), 5, 3, 3], [60, 5, 9, 3])
    annotations = [annotation(id=10 + i, bbox=bbox) for i, bbox in enumerate(bad_boxes)]
    annotations += [annotation(), annotation(), annotation(id=2, image_id=9), annotation(id=3, category_id=9)]
    annotations += [annotation(id=4, bbox="text"), annotation(id=5, bbox=[1, 1, 9, 9], iscrowd=7), {"id": 6}, 7]
    images = [
        {"id": 1, "file_name": "good.png"},
        {"id": 2, "file_name": "gone.png"},
        {"id": 3, "file_name": ".."},
        {"id": 1, "file_name": "good.png"},
        {"id": 4, "file_name": "good4.png", "width": 99},
        {"id": 5, "file_name": "empty.png"},
    ]
    root = write(annotations, images)
    (root / "train/empty.png").write_bytes(b"")
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(root / "train/good4.png")
    status, out, _ = check("--root", root, "--split", "train")
    assert status == 1
    expected = [
        "1 images: 'file_name' must be the path of a file",
        "1 images: id occurs more than once",
        "1 annotations: unknown image_id",
        "1 annotations: unknown category_id",
        "1 annotations: 'bbox' must be four numbers",
        "1 annotations: 'image_id' must be an integer",
        "1 annotations: not an object",
        "1 annotations: box of size zero",
        "1 annotations: box of negative size",
        "1 annotations: box outside of its image",
        "1 annotations: box not finite",
        "1 annotations: box reaches out of its image",
        "1 annotations: id occurs more than once",
        "1 annotations: objects that repeat another of the same image, class and box",
        "1 annotations: 'iscrowd' must be 0 or 1",
        "1 image files: missing",
        "1 image files: empty",
        "1 image files: of another size than annotated",
    ]
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert [line for line in expected if line not in lines] == []
    assert "Problems: 18" in lines
    status, out, _ = check("--root", root, "--split", "train", "--no-images")
    assert status == 1 and "image files" not in out


def test_images_that_are_one_file_by_other_paths_are_counted(check, write):
    names = ("good.png", ".//good.png", ".\\good.png", "good2.png")
    annotations = [{"id": 1, "image_id": 1, "category_id": 0, "bbox": [2, 2, 10, 10], "area": 100}]
    root = write(annotations, [{"id": number, "file_name": name} for number, name in enumerate(names, 1)])
    status, out, _ = check("--root", root, "--split", "train", "--no-images")
    assert status == 1 and "file_name occurs more than once" in out and "'good.png': 3 images" in out


def test_metrics_without_ground_truth_are_forecast_as_the_evaluation_then_gives_them(check, write):
    from engine.metrics.coco_metrics import evaluate_detections

    sizes = {"id": 1, "file_name": "good.png"}
    root = write([{"id": 1, "image_id": 1, "category_id": 0, "bbox": [2, 2, 10, 10], "area": 100}], [sizes])
    status, out, _ = check("--root", root, "--split", "train")
    assert status == 0
    for words in ("APm, ARm, oLRP_m: there is no object", "APl, ARl, oLRP_l: there is no", "AP and oLRP of 'dog'"):
        assert words in out
    assert "APs" not in out
    metrics = evaluate_detections(root / "annotations/instances_train.json", [])
    assert {name for name in ("APs", "APm", "APl", "oLRP_s", "oLRP_m", "oLRP_l") if metrics[name] == -1} == {
        "APm",
        "APl",
        "oLRP_m",
        "oLRP_l",
    }
    assert metrics["per_class"]["dog"]["AP"] is None


def test_wrong_usage_and_files_that_are_not_coco_are_status_2(check, tmp_path):
    status, _, err = check("--root", tmp_path)
    assert status == 2 and err.startswith("error: give --config FILE")
    status, _, err = check("--root", tmp_path, "--split", "train")
    assert status == 2 and "no such annotation file" in err
    (tmp_path / "annotations").mkdir()
    (tmp_path / "train").mkdir()
    (tmp_path / "annotations/instances_train.json").write_text("[1]")
    status, _, err = check("--root", tmp_path, "--split", "train")
    assert status == 2 and err.count("error:") == 1


@pytest.fixture
def write_splits(tmp_path):
    """write_splits({split: (annotations, categories)}) -> root; each split has one 64×48 image of its own."""

    def run(splits: dict[str, tuple[list[dict], list[dict]]]):
        for number, (split, (annotations, categories)) in enumerate(splits.items()):
            for folder in ("annotations", split):
                (tmp_path / folder).mkdir(exist_ok=True)
            Image.new("RGB", (64, 48), (number, 0, 0)).save(tmp_path / split / f"{split}.png")
            image = {"id": 1, "file_name": f"{split}.png", "width": 64, "height": 48}
            document = {"images": [image], "annotations": annotations, "categories": categories}
            (tmp_path / f"annotations/instances_{split}.json").write_text(json.dumps(document))
        return tmp_path

    return run


CAT_DOG = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
DOG_CAT = [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}]


def annotations_of(*boxes: list[float], **more: object) -> list[dict]:
    return [{"id": i + 1, "image_id": 1, "category_id": 1, "bbox": box, **more} for i, box in enumerate(boxes)]


SOUND = annotations_of([5, 5, 20, 20])


@pytest.mark.parametrize(
    ("annotations", "words"),
    [
        (annotations_of([5, 5, 20, 20], area=-1), "1 annotations: 'area' is no number from 0 on"),
        (annotations_of([5, 5, 20, 20], [5, 5, 20, 20]), "1 annotations: objects that repeat another of the same"),
        (annotations_of([5, 5, 20, 20], [0.5, 0.5, 0.2, 0.1]), "1 annotations: box smaller than a pixel"),
        ([], "1 annotations: no object"),
        (annotations_of([5, 5, 20, 20], iscrowd=1), "1 annotations: no object"),
    ],
)
def test_what_training_only_warns_of_is_a_problem(check, write_splits, annotations, words):
    root = write_splits({"train": (annotations, CAT_DOG)})
    status, out, _ = check("--root", root, "--split", "train")
    assert status == 1
    assert words in " ".join(out.split())


def test_boxes_in_fractions_and_images_without_a_use_are_explained(check, write_splits):
    root = write_splits({"train": (annotations_of([0.1, 0.2, 0.3, 0.4]), CAT_DOG)})
    status, _, err = check("--root", root, "--split", "train")
    assert status == 2 and "no box is larger than a pixel" in err
    file = root / "annotations/instances_train.json"
    file.write_text(file.read_text().replace('"id": 1, "file_name"', '"id": "1", "file_name"'))
    status, _, err = check("--root", root, "--split", "train")
    assert status == 2 and "'id' must be an integer" in err and err.count("\n") == 1


def test_corners_are_refused_as_in_training(check, write_splits, config_file, here):
    corners = annotations_of(*([30, 20 + i, 60, 40] for i in range(5)))
    root = write_splits({"train": (corners, CAT_DOG)})
    status, _, err = check("--root", root, "--split", "train")
    assert status == 2 and "the boxes look like corners" in err and err.count("\n") == 1
    options = (f"data.root={root}", "data.val_split=train", "data.batch_size=1", "--dry-run")
    trained = here("train.py", "--config", config_file, *options)
    assert trained.returncode == 2 and "the boxes look like corners" in trained.stderr


def test_an_id_of_two_files_is_refused_as_in_training(check, write, config_file, here):
    annotation = {"id": 1, "image_id": 1, "category_id": 0, "bbox": [4, 4, 30, 30], "area": 900, "iscrowd": 0}
    root = write([annotation], [{"id": 1, "file_name": "good.png"}, {"id": 1, "file_name": "good2.png"}])
    words = "images[1] (id 1): this id is also that of images[0], another file (good.png)"
    status, _, err = check("--root", root, "--split", "train")
    assert status == 2 and words in err and err.count("\n") == 1
    options = (f"data.root={root}", "data.val_split=train", "data.batch_size=1", "data.on_error=skip", "--dry-run")
    trained = here("train.py", "--config", config_file, *options)
    assert trained.returncode == 2 and words in trained.stderr


@pytest.mark.parametrize(
    ("val", "words"),
    [
        ((SOUND, DOG_CAT), "numbers the categories in another order"),
        ((SOUND, CAT_DOG[:1]), "has other categories"),
        ((SOUND, [{"id": 7, "name": "cat"}, {"id": 9, "name": "dog"}]), "unknown category_id"),
    ],
)
def test_splits_with_other_categories_are_refused_as_in_training(check, write_splits, config_file, here, val, words):
    root = write_splits({"train": (SOUND, CAT_DOG), "val": val})
    status, out, _ = check("--root", root, "--split", "train", "--split", "val")
    assert status == 1 and words in out
    trained = here("train.py", "--config", config_file, f"data.root={root}", "data.batch_size=1", "--dry-run")
    assert trained.returncode == 2 and words in trained.stderr


def test_sparse_ids_in_the_same_order_mean_the_same(check, write_splits):
    others = [{"id": 1, "name": "cat"}, {"id": 90, "name": "dog"}]
    root = write_splits({"train": (SOUND, CAT_DOG), "val": (SOUND, others)})
    assert check("--root", root, "--split", "train", "--split", "val")[0] == 0


def test_validation_images_that_are_training_images_are_counted(check, write_splits, config_file):
    root = write_splits({"train": (SOUND, CAT_DOG), "val": (SOUND, CAT_DOG)})
    copied = ("--root", root, "--split", "train", "--split", "val")
    (root / "val/val.png").write_bytes((root / "train/train.png").read_bytes())
    status, out, _ = check(*copied)
    assert status == 1 and "val: 1 of 1 image is in train too" in out
    arguments = ("--config", config_file, f"data.root={root}", "data.val_split=train", "data.batch_size=1")
    status, out, _ = check(*arguments)
    assert status == 1 and "data.val_split: it is the training split" in out
    status, out, _ = check(*arguments, "data.batch_size=2")
    assert status == 1 and "data.batch_size=2 exceeds the 1 training images" in out


def test_images_turned_by_exif_outside_or_crowded_are_counted(check, write_splits):
    boxes = [[i % 50, i // 50, 5, 5] for i in range(101)]
    root = write_splits({"train": (annotations_of(*boxes), CAT_DOG)})
    tags = Image.Exif()
    tags[0x0112] = 3
    Image.new("RGB", (64, 48)).save(root / "train/train.png", exif=tags)
    status, out, _ = check("--root", root, "--split", "train")
    assert status == 0
    decides = "The turn of 1 keeps the size, which cannot tell how labels were drawn: data.exif"
    assert f"Note: EXIF turns 1 image; read as viewers show them: 1. {decides}=turn decides\n" in out
    assert "1 image has more than 100 objects of a class (up to 101)" in out
    status, out, _ = check("--root", root, "--split", "train", "data.exif=ignore")
    assert f"Note: EXIF turns 1 image; read as stored: 1. {decides}=ignore decides\n" in out
    file = root / "annotations/instances_train.json"
    file.write_text(file.read_text().replace('"train.png"', f'"{root}/train/../../{root.name}-elsewhere.png"'))
    (root / "train/train.png").rename(root.with_name(f"{root.name}-elsewhere.png"))
    status, out, _ = check("--root", root, "--split", "train")
    assert status == 0 and f"Note: {root}: 1 image lies outside of it" in out
    status, _, err = check("--root", root, "--split", "train", "--inside-only")
    assert status == 2 and "1 image lies outside" in err


def test_turns_that_the_size_tells_leave_nothing_to_decide(check, write_splits):
    root = write_splits({"train": (SOUND, CAT_DOG)})
    tags = Image.Exif()
    tags[0x0112] = 6
    Image.new("RGB", (48, 64)).save(root / "train/train.png", exif=tags)
    _, out, _ = check("--root", root, "--split", "train")
    assert "Note: EXIF turns 1 image; read as viewers show them: 1\n" in out


def test_a_title_is_underlined_with_its_crowd_regions_and_no_object_is_no_obstacle_to_the_picture(check, write):
    crowd = {"id": 1, "image_id": 1, "category_id": 0, "bbox": [4, 4, 30, 30], "area": 900, "iscrowd": 1}
    root = write([crowd], [{"id": 1, "file_name": "good.png"}])
    _, out, err = check("--root", root, "--split", "train", "--picture", root / "p.png", "model.family=fcos")
    title, underline = out.splitlines()[:2]
    assert title.endswith("0 objects, 1 crowd region") and underline == "=" * len(title)
    assert (root / "p.png").stat().st_size > 10_000, err
