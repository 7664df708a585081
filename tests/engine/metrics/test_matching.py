"""Matching, precision and recall by arrays against pycocotools', entry by entry."""

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from engine.metrics import match_detections
from engine.metrics.average_precision import COCO_STATS, coco_stats, precisions, recalls
from engine.metrics.instances import Detections, GroundTruth, paired_iou
from engine.metrics.matching import AREAS, TAU, UNMATCHED, Matches, match


def pycocotools_evaluation(content: dict, results: list[dict]) -> COCOeval:
    truth, detections = COCO(), COCO()
    records = [r | {"id": i, "area": r["bbox"][2] * r["bbox"][3]} for i, r in enumerate(results, start=1)]
    with contextlib.redirect_stdout(io.StringIO()):
        truth.dataset, detections.dataset = content, content | {"annotations": records}
        truth.createIndex()
        detections.createIndex()
        coco_eval = COCOeval(truth, detections, "bbox")
        coco_eval.evaluate()
        coco_eval.accumulate()
        coco_eval.summarize()
    return coco_eval


def assert_equal_to_pycocotools(content: dict, results: list[dict]) -> None:
    reference, found = pycocotools_evaluation(content, results), match_detections(content, results)
    assert_same_matches(found, reference)
    for area in range(len(AREAS)):
        expected = reference.eval["precision"][:, :, :, area, -1]
        assert np.array_equal(precisions(found, area), expected)
        for position, limit in enumerate((1, 10, 100)):
            assert np.array_equal(recalls(found, area, limit), reference.eval["recall"][:, :, area, position])
    assert coco_stats(found, precisions(found)) == dict(zip(COCO_STATS, reference.stats.tolist(), strict=True))


def assert_same_matches(found: Matches, reference: COCOeval) -> None:
    """Ids in `reference` are positions, from 1."""
    images, labels = found.found.images[found.order], found.found.labels[found.order]
    at_tau = found.thresholds.tolist().index(TAU)
    num_seen, areas, num_images = 0, len(AREAS), len(found.truth.image_ids)
    for index, entry in enumerate(reference.evalImgs):
        label, area, image = index // (areas * num_images), index // num_images % areas, index % num_images
        rows = ((images == image) & (labels == label)).nonzero()[0]
        if entry is None:
            assert not len(rows)
            continue
        num_seen += len(rows)
        assert (found.order[rows] + 1).tolist() == entry["dtIds"]
        assert found.ranks[rows].tolist() == list(range(len(rows)))
        matched = found.matched[area][:, rows]
        assert np.array_equal(matched + 1, entry["dtMatches"])
        of_objects = np.append(found.ignored[area], False)[matched]  # the one appended: of UNMATCHED
        ignored = np.where(matched == UNMATCHED, found.outside[area, rows], of_objects)
        assert np.array_equal(ignored, entry["dtIgnore"])
        gt_ids = [gt["id"] for gt in reference._gts[entry["image_id"], entry["category_id"]]]
        for row, position in enumerate(matched[at_tau]):
            column = gt_ids.index(position + 1) if position != UNMATCHED else None
            overlap = 0 if column is None else reference.ious[entry["image_id"], entry["category_id"]][row, column]
            assert found.overlaps[area, rows[row]] == overlap
    assert num_seen == areas * len(found.order)


def random_scene(seed: int) -> tuple[dict, list[dict]]:
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

    num_objects, num_detections = rng.integers(1, 60), rng.integers(1, 1500)  # more than 100 of an image and class
    objects = [
        place | {"bbox": box, "id": i, "iscrowd": int(rng.random() < 0.2), "area": box[2] * box[3] * share}
        for i, (place, box, share) in enumerate(
            zip(places(num_objects), boxes(num_objects), rng.choice([1, 0.7], num_objects).tolist(), strict=True), 1
        )
    ]
    scores = (rng.integers(1, 9, num_detections) / 8).tolist()
    results = [
        place | {"bbox": box, "score": score}
        for place, box, score in zip(places(num_detections), boxes(num_detections), scores, strict=True)
    ]
    content = {
        "images": [{"id": i} for i in range(1, num_images + 1)],
        "categories": [{"id": c, "name": f"class {c}"} for c in range(1, num_classes + 1)],
        "annotations": objects,
    }
    return content, results


@pytest.mark.parametrize("seed", range(30))
def test_equals_pycocotools_on_random_scenes(seed: int) -> None:
    assert_equal_to_pycocotools(*random_scene(seed))


def test_equals_pycocotools_on_coco(shared: Path) -> None:
    content = json.loads((shared / "data/coco_tiny/annotations/instances_val2017.json").read_text())
    for index, annotation in enumerate(content["annotations"], start=1):
        annotation["id"] = index
    assert_equal_to_pycocotools(content, json.loads((shared / "golden/lrp/detections.json").read_text()))


def test_blocks_of_detections_give_the_same_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    content, results = random_scene(1)
    whole = match_detections(content, results)
    monkeypatch.setattr("engine.metrics.matching.BLOCK", 7)
    assert np.array_equal(match_detections(content, results).matched, whole.matched)


def test_nothing_to_match() -> None:
    content, results = random_scene(3)
    assert_equal_to_pycocotools(content, [])
    assert_equal_to_pycocotools(content | {"annotations": []}, results)


def test_matching_by_hand() -> None:
    detections = [[0, 0, 10, 6], [0, 0, 10, 9], [0, 0, 10, 7]]  # best first
    objects = [[0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 20, 20]]  # two equal ones in a crowd
    truth = GroundTruth(
        image_ids=[1],
        category_ids=[1],
        class_names=["a"],
        images=np.zeros(3, dtype=np.int64),
        labels=np.zeros(3, dtype=np.int64),
        boxes=np.array(objects, dtype=np.float64),
        areas=np.array([100.0, 2000, 400]),
        crowd=np.array([False, False, True]),
    )
    zeros = np.zeros(3, dtype=np.int64)
    found = Detections(zeros, zeros, np.array(detections, dtype=np.float64), np.array([0.9, 0.8, 0.7]))
    matches = match(truth, found, [0.5, 0.75])
    # at 0.5: the last of two equal objects; the only other one; the crowd
    assert matches.matched[0, 0].tolist() == [1, 0, 2]
    # at 0.75: no object is near enough to the first and the last, so the crowd, twice
    assert matches.matched[0, 1].tolist() == [2, 1, 2]
    # of the small ones object 1 is none: object 0 before the crowd of larger IoU, then the largest IoU, never used up
    assert matches.matched[1, 0].tolist() == [0, 2, 2]
    assert matches.overlaps[0].tolist() == [0.6, 0.9, 1]
    lowest = match(truth, Detections(zeros[:1], zeros[:1], np.array([[50.0, 0, 10, 10]]), np.ones(1)))
    assert (lowest.matched == UNMATCHED).all()


def test_iou_of_a_crowd_is_the_share_of_the_detection() -> None:
    boxes, objects = np.array([[0, 0, 10, 10.0]] * 3), np.array([[5, 0, 10, 10], [5, 0, 10, 10], [10, 0, 5, 5.0]])
    assert paired_iou(boxes, objects, np.array([False, True, False])).tolist() == [50 / 150, 0.5, 0]
