"""Metrics of detections against pycocotools itself, incomplete annotation files, and mistakes in either file."""

import contextlib
import copy
import io
import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from engine.metrics import DetectionsError, evaluate_detections
from engine.metrics.average_precision import COCO_STATS

SCRIPT = Path(__file__).resolve().parents[3] / "scripts/evaluate_detections.py"
LRP_NAMES = ("oLRP", "oLRP_loc", "oLRP_fp", "oLRP_fn", "oLRP_s", "oLRP_m", "oLRP_l")


@pytest.fixture
def annotations() -> dict:
    """The least that can be evaluated; annotation and image ids start at 0."""
    return {
        "images": [{"id": 0}, {"id": 1}],
        "categories": [{"id": 3, "name": "cat"}, {"id": 8, "name": "dog"}],
        "annotations": [
            {"image_id": 0, "category_id": 3, "bbox": [0, 0, 50, 50], "id": 0},
            {"image_id": 1, "category_id": 8, "bbox": [10, 10, 20, 20], "id": 1},
        ],
    }


@pytest.fixture
def detections() -> list[dict]:
    return [
        {"image_id": 0, "category_id": 3, "bbox": [0, 0, 50, 50], "score": 0.9},
        {"image_id": 1, "category_id": 8, "bbox": [10, 10, 20, 20], "score": 0.4},
    ]


def write(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.fixture
def golden(shared) -> tuple[Path, Path]:
    return shared / "data/coco_tiny/annotations/instances_val2017.json", shared / "golden/lrp/detections.json"


def test_equals_pycocotools_and_the_authors_evaluator(golden, shared):
    annotations, detections = golden
    metrics = evaluate_detections(annotations, detections)
    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth = COCO(annotations)
        reference = COCOeval(ground_truth, ground_truth.loadRes(str(detections)), "bbox")
        reference.evaluate()
        reference.accumulate()
        reference.summarize()
    assert [metrics[name] for name in COCO_STATS] == reference.stats.tolist()
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
        ("annotations", [{"image_id": 0, "category_id": 3}], r"annotations\[0\] lacks a valid 'bbox'"),
        ("annotations", [{"image_id": 0, "category_id": 3, "bbox": [1, 2]}], r"annotations\[0\] has bbox \[1, 2\]"),
        (
            "annotations",
            [{"image_id": 0, "category_id": 3, "bbox": [0, 0, 1, 1], "iscrowd": "0"}],
            r"annotations\[0\] has iscrowd '0'; expected 0 or 1",
        ),
        ("images", [{"id": 0}, {"id": 0}], "2 images have id 0"),
        ("images", [{"id": True}], r"images\[0\] lacks a valid 'id'"),
        ("images", [{"file_name": "a.jpg"}], r"images\[0\] lacks a valid 'id'"),
        ("categories", [{"id": 3, "name": "cat"}, {"id": 8, "name": "cat"}], "2 categories have name 'cat'"),
    ],
)
def test_malformed_annotations(annotations, section, value, message, tmp_path):
    annotations[section] = value
    with pytest.raises(DetectionsError, match=message):
        evaluate_detections(write(tmp_path / "a.json", annotations), [])


def run_script(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["evaluate_detections.py", *map(str, arguments)])
    monkeypatch.setattr(sys, "path", [*sys.path])
    runpy.run_path(str(SCRIPT), run_name="__main__")


def test_script_prints_the_report_and_writes_the_metrics(annotations, detections, tmp_path, monkeypatch, capsys):
    files = write(tmp_path / "a.json", annotations), write(tmp_path / "d.json", detections)
    out = tmp_path / "out/metrics.json"
    run_script(monkeypatch, "--annotations", files[0], "--detections", files[1], "--json", out)
    printed = capsys.readouterr()
    assert "oLRP_loc" in printed.out and "cat" in printed.out and printed.err == ""
    assert json.loads(out.read_text()) == evaluate_detections(*files)


def test_metrics_are_written_before_the_report_is_printed(annotations, detections, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise BrokenPipeError(32, "Broken pipe")

    files = write(tmp_path / "a.json", annotations), write(tmp_path / "d.json", detections)
    monkeypatch.setattr("builtins.print", fail)
    with pytest.raises(BrokenPipeError):
        run_script(monkeypatch, "--annotations", files[0], "--detections", files[1], "--json", tmp_path / "m.json")
    assert json.loads((tmp_path / "m.json").read_text()) == evaluate_detections(*files)


def test_the_report_is_printed_where_the_metrics_cannot_be_written(
    annotations, detections, tmp_path, monkeypatch, capsys
):
    def full(*_):
        raise OSError(28, "No space left on device", "m.json")

    files = write(tmp_path / "a.json", annotations), write(tmp_path / "d.json", detections)
    monkeypatch.setattr("engine.metrics.report.write_json", full)
    with pytest.raises(SystemExit) as stopped:
        run_script(monkeypatch, "--annotations", files[0], "--detections", files[1], "--json", tmp_path / "m.json")
    printed = capsys.readouterr()
    assert stopped.value.code == 1 and printed.err.startswith("error: m.json: No space left")
    assert "oLRP_loc" in printed.out


def test_script_reports_a_user_error_in_one_line(annotations, tmp_path, monkeypatch, capsys):
    files = write(tmp_path / "a.json", annotations), write(tmp_path / "d.json", "{}")
    with pytest.raises(SystemExit) as stopped:
        run_script(monkeypatch, "--annotations", files[0], "--detections", files[1])
    printed = capsys.readouterr()
    assert (stopped.value.code, printed.out, printed.err.count("\n")) == (2, "", 1)
    assert printed.err.startswith(f"error: {files[1]}: is not a list; expected")
