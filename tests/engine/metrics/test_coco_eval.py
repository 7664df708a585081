"""The evaluation in numpy against pycocotools', entry by entry."""

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from engine.metrics.coco_eval import UNMATCHED, BoxEvaluation, greedy_matches


def evaluated(kind: type[COCOeval], ground_truth: COCO, results: list[dict], **params: object) -> COCOeval:
    detections = COCO()
    records = [r | {"id": i, "area": r["bbox"][2] * r["bbox"][3]} for i, r in enumerate(results, start=1)]
    with contextlib.redirect_stdout(io.StringIO()):
        detections.dataset = ground_truth.dataset | {"annotations": records}
        detections.createIndex()
        coco_eval = kind(ground_truth, detections, "bbox")
        for name, value in params.items():
            setattr(coco_eval.params, name, value)
        coco_eval.evaluate()
        coco_eval.accumulate()
        if not params:
            coco_eval.summarize()
    return coco_eval


def assert_equal_evaluations(ground_truth: COCO, results: list[dict], **params: object) -> None:
    found, expected = (evaluated(kind, ground_truth, results, **params) for kind in (BoxEvaluation, COCOeval))
    assert len(found.evalImgs) == len(expected.evalImgs)
    for entry, reference in zip(found.evalImgs, expected.evalImgs, strict=True):
        assert (entry is None) == (reference is None)
        for name, value in (entry or {}).items():
            assert np.array_equal(value, reference[name]), name
    for key, ious in expected.ious.items():
        if np.size(ious):
            assert np.array_equal(found.ious[key], ious)
    for name in ("precision", "recall", "scores"):
        assert np.array_equal(found.eval[name], expected.eval[name]), name
    assert found.eval["counts"] == expected.eval["counts"]
    assert np.array_equal(found.stats, expected.stats)


def random_scene(seed: int) -> tuple[COCO, list[dict]]:
    """Crowded images on a coarse grid: IoUs and scores tie, areas lie on both sides of the limits and upon them."""
    rng = np.random.default_rng(seed)
    num_images, num_classes = 4, 3

    def boxes(count: int) -> list[list[float]]:
        corners = rng.choice([0, 8, 16, 40], (count, 2))
        sides = rng.choice([16, 24, 32, 48, 96, 104], (count, 2))
        jitter = rng.choice([0, 0, 3.7], (count, 4))
        return (np.concatenate([corners, sides], axis=1) + jitter).tolist()

    def places(count: int) -> list[dict]:
        images, labels = rng.integers(1, num_images + 1, count), rng.integers(1, num_classes + 1, count)
        return [{"image_id": int(i), "category_id": int(c)} for i, c in zip(images, labels, strict=True)]

    num_objects, num_detections = rng.integers(0, 60), rng.integers(0, 400)
    objects = [
        place | {"bbox": box, "id": i, "iscrowd": int(rng.random() < 0.2), "area": box[2] * box[3] * share}
        for i, (place, box, share) in enumerate(
            zip(places(num_objects), boxes(num_objects), rng.choice([1, 0.7], num_objects).tolist(), strict=True), 1
        )
    ]
    results = [
        place | {"bbox": box, "score": score}
        for place, box, score in zip(
            places(num_detections), boxes(num_detections), rng.integers(1, 9, num_detections) / 8, strict=True
        )
    ]
    ground_truth = COCO()
    ground_truth.dataset = {
        "images": [{"id": i} for i in range(1, num_images + 1)],
        "categories": [{"id": c, "name": f"class {c}"} for c in range(1, num_classes + 1)],
        "annotations": objects,
    }
    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth.createIndex()
    return ground_truth, results


@pytest.mark.parametrize("seed", range(40))
def test_equals_pycocotools_on_random_scenes(seed: int) -> None:
    assert_equal_evaluations(*random_scene(seed))


def test_equals_pycocotools_with_other_parameters() -> None:
    assert_equal_evaluations(
        *random_scene(99),
        maxDets=[20, 3],
        iouThrs=np.array([0.3, 1.0]),
        areaRng=[[0, 1e10], [500, 2000]],
        areaRngLbl=["all", "some"],
        recThrs=np.linspace(0, 1, 7),
        imgIds=[3, 1],
        catIds=[2, 3],
    )


def test_equals_pycocotools_on_coco(shared: Path) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth = COCO(shared / "data/coco_tiny/annotations/instances_val2017.json")
    assert_equal_evaluations(ground_truth, json.loads((shared / "golden/lrp/detections.json").read_text()))


def test_nothing_to_match() -> None:
    ground_truth, results = random_scene(3)
    assert_equal_evaluations(ground_truth, [])
    ground_truth.dataset["annotations"] = []
    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth.createIndex()
    assert_equal_evaluations(ground_truth, results)


def test_matching_by_hand() -> None:
    ious = np.array([[0.6, 0.6, 0.9], [0.7, 0.0, 0.9], [0.0, 0.8, 0.9]])
    ignored = np.array([[False, False, True], [True, True, True]])
    crowd = np.array([False, False, True])
    matches = greedy_matches(ious, ignored, crowd, np.array([0.5, 0.75]))
    # at 0.5: the last of two equal objects; the only other one; the crowd, as object 1 is taken
    assert matches[0, 0].tolist() == [1, 0, 2]
    # at 0.75: no object reaches it, so the crowd, twice; object 1 before the crowd of larger IoU
    assert matches[0, 1].tolist() == [2, 2, 1]
    # where all are ignored the largest IoU decides, and a crowd is never used up
    assert matches[1].tolist() == [[2, 2, 2], [2, 2, 2]]
    assert greedy_matches(np.full((1, 1), 0.4), ignored[:1, :1], crowd[:1], np.array([0.5])).item() == UNMATCHED
