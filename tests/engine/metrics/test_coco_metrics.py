"""Metrics of detections against pycocotools itself, incomplete annotation files, and mistakes in either file."""

import contextlib
import copy
import io
import json
from pathlib import Path

import pytest
from metric_files import write
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from engine.metrics import DetectionsError, evaluate_detections
from engine.metrics.average_precision import COCO_STATS

LRP_NAMES = ("oLRP", "oLRP_loc", "oLRP_fp", "oLRP_fn", "oLRP_s", "oLRP_m", "oLRP_l")


@pytest.fixture
def golden(shared) -> tuple[Path, Path]:
    return shared / "data/coco_tiny/annotations/instances_val2017.json", shared / "golden/lrp/detections.json"


def by_pycocotools(annotations: Path, detections: str | list[dict]) -> list[float]:
    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth = COCO(annotations)
        reference = COCOeval(ground_truth, ground_truth.loadRes(detections), "bbox")
        reference.evaluate()
        reference.accumulate()
        reference.summarize()
    return reference.stats.tolist()


def test_equals_pycocotools_and_the_authors_evaluator(golden, shared):
    annotations, detections = golden
    metrics = evaluate_detections(annotations, detections)
    assert [metrics[name] for name in COCO_STATS] == by_pycocotools(annotations, str(detections))
    expected = json.loads((shared / "golden/lrp/expected.json").read_text())["metrics"]
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert set(metrics) == {*expected, "per_class"}


def test_class_values_are_those_of_evaluating_the_class_alone(golden):
    ground_truth = json.loads(golden[0].read_text())
    per_class = evaluate_detections(*golden)["per_class"]
    for category in ground_truth["categories"][:80:16]:
        alone = evaluate_detections(*golden, category_ids=[category["id"]])
        assert list(alone["per_class"]) == [category["name"]]
        assert per_class[category["name"]]["AP"] == pytest.approx(alone["AP"], abs=1e-12)
        assert per_class[category["name"]]["oLRP"] == alone["oLRP"]


def test_accepts_the_least_an_annotation_file_can_hold(annotations, detections, tmp_path, capsys):
    before = copy.deepcopy((annotations, detections))
    loaded = COCO()
    loaded.dataset = annotations
    metrics = evaluate_detections(loaded, detections)
    assert (metrics["AP"], metrics["AR100"], metrics["oLRP"]) == (pytest.approx(1), 1, 0)  # annotation id 0 too
    assert (metrics["APs"], metrics["APm"], metrics["APl"]) == (pytest.approx(1), pytest.approx(1), -1)
    assert metrics["per_class"]["dog"] == {"AP": pytest.approx(1), "oLRP": 0, "lrp_threshold": 0.4}
    assert (annotations, detections) == before
    assert capsys.readouterr() == ("", "")
    files = write(tmp_path / "a.json", annotations), write(tmp_path / "d.json", detections)
    assert evaluate_detections(*files) == metrics


@pytest.mark.parametrize(("ids", "theirs"), [([1, 2, 3], 1), ([0, 1, 2], 0.442), ([1, 2, 2], None)])
def test_ids_of_annotations_do_not_count_as_they_do_with_pycocotools(ids, theirs, tmp_path):
    boxes = [[x, 0, 10, 10] for x in (0, 20, 40)]
    place = {"image_id": 1, "category_id": 1}
    objects = [place | {"id": i, "bbox": box, "area": 100, "iscrowd": 0} for i, box in zip(ids, boxes, strict=True)]
    content = {"images": [{"id": 1}], "categories": [{"id": 1, "name": "cat"}], "annotations": objects}
    path = write(tmp_path / "a.json", content)
    detections = [place | {"bbox": box, "score": score} for box, score in zip(boxes, (0.9, 0.8, 0.7), strict=True)]
    assert evaluate_detections(path, detections)["AP"] == pytest.approx(1)
    found = by_pycocotools(path, detections)[0]
    assert found < 0.9 if theirs is None else found == pytest.approx(theirs, abs=5e-4)


def test_given_area_and_crowd_flag_count(annotations, detections, tmp_path):
    annotations["annotations"][0]["area"] = 900  # of the mask: a small object in a medium box
    annotations["annotations"][1]["iscrowd"] = 1
    metrics = evaluate_detections(write(tmp_path / "a.json", annotations), detections)
    assert (metrics["APs"], metrics["APm"]) == (pytest.approx(1), -1)
    assert metrics["per_class"]["dog"] == {"AP": None, "oLRP": None, "lrp_threshold": None}


def test_images_and_categories_can_be_restricted(annotations, detections, tmp_path):
    path = write(tmp_path / "a.json", annotations)
    assert set(evaluate_detections(path, detections, category_ids=[8])["per_class"]) == {"dog"}
    metrics = evaluate_detections(path, detections[:1], image_ids=[1])
    assert metrics["per_class"]["cat"]["AP"] is None
    assert metrics["AP"] == 0


@pytest.mark.parametrize(
    ("restriction", "message"),
    [
        ({"category_ids": [8, "cat"]}, "a.json: no category has id 'cat', which is to be evaluated; ids are 3, 8"),
        ({"image_ids": [1, 5]}, "a.json: no image has id 5, which is to be evaluated; ids are 0, 1"),
    ],
)
def test_a_restriction_to_what_the_file_has_not_is_refused(annotations, restriction, message, tmp_path):
    with pytest.raises(DetectionsError, match=message):
        evaluate_detections(write(tmp_path / "a.json", annotations), [], **restriction)


def test_no_detections(annotations, tmp_path):
    metrics = evaluate_detections(write(tmp_path / "a.json", annotations), [])
    assert (metrics["AP"], metrics["AR100"], metrics["APl"]) == (0, 0, -1)
    assert (metrics["oLRP"], metrics["oLRP_fn"], metrics["oLRP_loc"], metrics["oLRP_fp"]) == (1, 1, -1, -1)
    assert metrics["per_class"]["cat"] == {"AP": 0, "oLRP": 1, "lrp_threshold": None}


@pytest.mark.parametrize("missing", ["annotations", "images", "categories"])
def test_nothing_to_detect(annotations, missing, tmp_path):
    annotations["annotations"] = annotations[missing] = []
    metrics = evaluate_detections(write(tmp_path / "a.json", annotations), [])
    assert {metrics[name] for name in (*COCO_STATS, *LRP_NAMES)} == {-1}
    assert all(set(values.values()) == {None} for values in metrics["per_class"].values())


def test_boxes_that_are_not_finite_are_left_out_with_a_warning(annotations, detections, tmp_path, caplog):
    annotations["annotations"].append({"image_id": 1, "category_id": 8, "bbox": [float("nan"), 0, 1, 1]})
    assert evaluate_detections(write(tmp_path / "a.json", annotations), detections)["oLRP"] == 0
    assert "left out 1 annotations" in caplog.text


def test_objects_of_what_the_file_does_not_list_are_left_out_with_a_warning(annotations, detections, tmp_path, caplog):
    expected = evaluate_detections(annotations, detections)
    box = {"bbox": [0, 0, 9, 9]}
    annotations["annotations"] += [
        {"image_id": 0, "category_id": 3, "bbox": [float("nan")] * 4},
        {"image_id": 0, "category_id": 5, **box},
        {"image_id": 7, "category_id": 3, **box},
        {"image_id": 0, "category_id": 6, **box},
    ]
    for _ in range(2):
        assert evaluate_detections(write(tmp_path / "a.json", annotations), detections) == expected
    assert expected["oLRP"] == 0
    warning = "left out {} annotations whose {} is not among the {} (the first: annotations[{}], of {} {})"
    assert caplog.text.count(warning.format(2, "category_id", "categories", 3, "category_id", 5)) == 1
    assert caplog.text.count(warning.format(1, "image_id", "images", 4, "image_id", 7)) == 1


def test_negative_sides_count_as_with_pycocotools_and_are_warned_of(annotations, detections, tmp_path, caplog):
    annotations["annotations"] += [
        {"image_id": 0, "category_id": 3, "bbox": [60, 60, -10, -10], "area": 100, "iscrowd": 0, "id": 3},
        {"image_id": 1, "category_id": 8, "bbox": [60, 60, -10, 10], "area": 100, "iscrowd": 0, "id": 4},
    ]
    for annotation in annotations["annotations"]:
        annotation |= {"id": annotation["id"] + 1, "iscrowd": 0}
        annotation.setdefault("area", annotation["bbox"][2] * annotation["bbox"][3])
    path = write(tmp_path / "a.json", annotations)
    metrics = evaluate_detections(path, detections)
    assert [metrics[name] for name in COCO_STATS] == by_pycocotools(path, detections)
    assert metrics["oLRP_fn"] == 0.5  # of either class one of two
    assert "a.json: 2 annotations have a bbox with a negative side" in caplog.text
    assert "(the first: annotations[2])" in caplog.text


def test_negative_areas_are_unknown(annotations, detections, tmp_path, caplog):
    expected = evaluate_detections(annotations, detections)
    for annotation in annotations["annotations"]:
        annotation["area"] = -1
    assert evaluate_detections(write(tmp_path / "a.json", annotations), detections) == expected
    assert "a.json: 2 annotations have a negative area" in caplog.text


def test_more_objects_than_detections_count_is_said_once(annotations, tmp_path, caplog):
    annotations["annotations"] *= 51
    evaluate_detections(write(tmp_path / "fewer.json", annotations), [])
    assert caplog.text == ""
    annotations["annotations"] *= 2
    for _ in range(2):
        evaluate_detections(write(tmp_path / "more.json", annotations), [])
    assert caplog.text.count("more than 100 objects of one class in 2 images (the first: image 0)") == 1
