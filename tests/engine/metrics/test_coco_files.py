"""Annotations and detections as they are given, in files and in memory: read, or named by their place."""

import json

import numpy as np
import pytest
from metric_files import write

from engine.metrics import DetectionsError, evaluate_detections


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_byte_order_marks_are_read(annotations, detections, encoding, tmp_path):
    files = tmp_path / "a.json", tmp_path / "d.json"
    for path, content in zip(files, (annotations, detections), strict=True):
        path.write_text(json.dumps(content), encoding=encoding)
    assert evaluate_detections(*files) == evaluate_detections(annotations, detections)


@pytest.mark.filterwarnings("error")
def test_boxes_may_be_of_any_size(annotations, detections):
    annotations["annotations"][0]["bbox"] = detections[0]["bbox"] = [1e308, 0, 1e308, 1e308]
    metrics = evaluate_detections(annotations, detections)
    assert metrics["per_class"]["cat"]["oLRP"] is None  # larger than what COCO counts
    assert metrics["per_class"]["dog"]["oLRP"] == 0


def test_ids_may_be_of_any_size(annotations, detections):
    for entry in (*annotations["annotations"], *detections):
        entry["image_id"] += 2**70
    annotations["images"] = [{"id": 2**70}, {"id": 2**70 + 1}]
    assert evaluate_detections(annotations, detections)["oLRP"] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": float("nan")}, "score nan"),
        ({"score": "0.5"}, "score '0.5'"),
        ({"bbox": [0, 0, 50]}, r"bbox \[0, 0, 50\]"),
        ({"bbox": [0, 0, float("inf"), 50]}, r"bbox \[0, 0, inf, 50\]"),
        ({"bbox": [60, 60, -10, -10]}, r"bbox \[60, 60, -10, -10\]; expected .* no side negative"),
        ({"image_id": 7}, "image_id 7, unknown in .*a.json; use the ids"),
        ({"image_id": [0]}, r"image_id \[0\]"),
        ({"category_id": 0}, "category_id 0, unknown in .*a.json"),
        ({"score": None}, "score None"),
        ({"score": True}, "score True"),
        ({"score": 10**400}, "score 1000"),
        ({"bbox": [0, 0, 10**400, 50]}, r"bbox \[0, 0, 1000"),
        ({"bbox": [0, 0, True, 50]}, r"bbox \[0, 0, True, 50\]"),
        ({"image_id": True}, "image_id True"),
        ({"category_id": "8"}, "category_id '8' of type str; expected an integer"),
        ({"image_id": 1.0}, "image_id 1.0 of type float; expected an integer"),
    ],
)
def test_wrong_detection_is_named(annotations, detections, change, message, tmp_path):
    detections[1].update(change)
    files = write(tmp_path / "a.json", annotations), write(tmp_path / "d.json", detections)
    with pytest.raises(DetectionsError, match=f"^.*d.json: detection 1 has {message}") as error:
        evaluate_detections(*files)
    assert "\n" not in str(error.value)


def test_numbers_in_memory_may_be_numpys(annotations, detections):
    expected = evaluate_detections(annotations, detections)
    for found, integer, floating in zip(detections, (np.int64, np.uint8), (np.float64, np.float16), strict=True):
        found.update({key: integer(found[key]) for key in ("image_id", "category_id")})
        found.update(bbox=[np.float32(side) for side in found["bbox"]], score=floating(found["score"]))
    metrics = evaluate_detections(annotations, detections)
    assert metrics["per_class"]["dog"].pop("lrp_threshold") == np.float16(0.4)
    assert expected["per_class"]["dog"].pop("lrp_threshold") == 0.4
    assert metrics == expected


def test_annotations_and_boxes_in_memory_may_be_numpys(annotations, detections):
    expected = evaluate_detections(annotations, detections)
    for entry in (*annotations["images"], *annotations["categories"]):
        entry["id"] = np.int64(entry["id"])
    for entry in (*annotations["annotations"], *detections):
        entry.update({key: np.int32(entry[key]) for key in ("image_id", "category_id")})
        entry["bbox"] = np.array(entry["bbox"], dtype=np.float32)
    assert evaluate_detections(annotations, detections) == expected
    for wrong in (np.float32(3), np.zeros(3), np.zeros((2, 2)), np.zeros((4, 1))):
        with pytest.raises(DetectionsError, match=r"^detections: detection 2 has bbox .*; expected four numbers"):
            evaluate_detections(annotations, [*detections, detections[0] | {"bbox": wrong}])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": np.float32("inf")}, "score .*inf.*; expected a finite number"),
        ({"score": np.bool_(True)}, "score .*True"),
        ({"bbox": [0, 0, np.float32("nan"), 50]}, "bbox .*nan"),
        ({"image_id": np.int64(7)}, "image_id .*7.*, unknown in annotations"),
        ({"image_id": np.float32(1)}, "image_id .*1.0.* of type float32; expected an integer"),
    ],
)
def test_wrong_numbers_of_numpy_are_named(annotations, detections, change, message):
    detections[1].update(change)
    with pytest.raises(DetectionsError, match=f"^detections: detection 1 has {message}"):
        evaluate_detections(annotations, detections)


@pytest.mark.parametrize("content", [None, {}, "generator"])
def test_detections_in_memory_are_a_list(annotations, detections, content):
    with pytest.raises(DetectionsError, match=r"^detections: is not a list; expected a list of"):
        evaluate_detections(annotations, iter(detections) if content == "generator" else content)
    assert evaluate_detections(annotations, tuple(detections)) == evaluate_detections(annotations, detections)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is not JSON"),
        ('[{"image_id": 0', "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("{}", "is not a list; expected"),
        ("[5]", "detection 0 is not an object; expected"),
        ('[{"image_id": 0, "category_id": 3, "bbox": [0, 0, 1, 1]}]', "detection 0 has no 'score'; expected"),
    ],
)
def test_malformed_results_file(annotations, content, message, tmp_path):
    with pytest.raises(DetectionsError, match=f"^.*d.json: {message}"):
        evaluate_detections(write(tmp_path / "a.json", annotations), write(tmp_path / "d.json", content))


def test_missing_files(annotations, tmp_path):
    with pytest.raises(DetectionsError, match=r"a\.json: cannot be read"):
        evaluate_detections(tmp_path / "a.json", [])
    with pytest.raises(DetectionsError, match=r"d\.json: cannot be read"):
        evaluate_detections(write(tmp_path / "a.json", annotations), tmp_path / "d.json")


@pytest.mark.parametrize(
    ("section", "value", "message"),
    [
        ("annotations", None, "no list 'annotations'"),
        ("annotations", [{"image_id": 0, "category_id": 3}], r"annotations\[0\] has no 'bbox'; expected COCO"),
        ("annotations", [{"image_id": 0, "category_id": 3, "bbox": [1, 2]}], r"annotations\[0\] has bbox \[1, 2\]"),
        (
            "annotations",
            [{"image_id": 0, "category_id": 3, "bbox": [0, 0, 1, 1], "iscrowd": "0"}],
            r"annotations\[0\] has iscrowd '0'; expected 0 or 1",
        ),
        ("images", [{"id": 0}, {"id": 0}], "2 images have id 0"),
        ("images", [{"id": True}], r"images\[0\] has id True of type bool; expected an integer"),
        ("images", [{"id": "a"}], r"images\[0\] has id 'a' of type str; expected an integer"),
        ("images", [{"file_name": "a.jpg"}], r"images\[0\] has no 'id'; expected COCO format"),
        ("images", [7], r"images\[0\] is not an object; expected COCO format"),
        ("categories", [{"id": 3, "name": 3}], r"categories\[0\] has name 3; expected a string"),
        ("annotations", [{"image_id": "0", "category_id": 3, "bbox": []}], "has image_id '0' of type str; expected an"),
        ("categories", [{"id": 3, "name": "cat"}, {"id": 8, "name": "cat"}], "2 categories have name 'cat'"),
    ],
)
def test_malformed_annotations(annotations, section, value, message, tmp_path):
    annotations[section] = value
    with pytest.raises(DetectionsError, match=message):
        evaluate_detections(write(tmp_path / "a.json", annotations), [])
