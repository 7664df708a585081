"""oLRP against the metric authors' numbers and against a plain double loop with its own matching."""

import contextlib
import io
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from engine.metrics.lrp import evaluate_lrp

AREAS = {"oLRP": (0, 1e10), "oLRP_s": (0, 32**2), "oLRP_m": (32**2, 96**2), "oLRP_l": (96**2, 1e10)}
NO_GROUND_TRUTH = dict.fromkeys(("oLRP", "oLRP_loc", "oLRP_fp", "oLRP_fn", "lrp_threshold"))
NO_TRUE_POSITIVE = NO_GROUND_TRUTH | {"oLRP": 1.0, "oLRP_fn": 1.0}


def box_object(image_id: int, category_id: int, bbox: list, iscrowd: int = 0, **score: float) -> dict:
    place = {"image_id": image_id, "category_id": category_id, "bbox": bbox}
    return place | {"area": bbox[2] * bbox[3], "iscrowd": iscrowd} | score


def coco(num_images: int, num_classes: int, objects: list[dict]) -> COCO:
    index = COCO()
    index.dataset = {
        "images": [{"id": i} for i in range(1, num_images + 1)],
        "categories": [{"id": i, "name": f"class {i}"} for i in range(1, num_classes + 1)],
        "annotations": [{**o, "id": i} for i, o in enumerate(objects, start=1)],
    }
    index.createIndex()
    return index


def matched(ground_truth: COCO, detections: COCO) -> COCOeval:
    coco_eval = COCOeval(ground_truth, detections, "bbox")
    coco_eval.evaluate()
    return coco_eval


def lrp_of(ground_truth: list[dict], detections: list[dict], num_images: int = 1, num_classes: int = 1) -> dict:
    with contextlib.redirect_stdout(io.StringIO()):
        return evaluate_lrp(
            matched(coco(num_images, num_classes, ground_truth), coco(num_images, num_classes, detections))
        )


def iou(detection: list, truth: list, crowd: bool) -> float:
    width = min(detection[0] + detection[2], truth[0] + truth[2]) - max(detection[0], truth[0])
    height = min(detection[1] + detection[3], truth[1] + truth[3]) - max(detection[1], truth[1])
    intersection = max(width, 0) * max(height, 0)
    detection_area = detection[2] * detection[3]
    return intersection / (detection_area if crowd else detection_area + truth[2] * truth[3] - intersection)


def outcomes(truths: list[dict], detections: list[dict], low: float, high: float) -> list[tuple]:
    """(score, "TP" | "FP", IoU) of the counted detections of one image and class, best first."""
    normal = [t for t in truths if not t["iscrowd"] and low <= t["area"] <= high]
    ignored = [t for t in truths if t["iscrowd"] or not low <= t["area"] <= high]
    used, result = [], []
    for d in sorted(detections, key=lambda d: -d["score"])[:100]:
        for group, counts in ((normal, True), (ignored, False)):
            free = [t for t in group if t["iscrowd"] or not any(t is u for u in used)]
            overlaps = [iou(d["bbox"], t["bbox"], t["iscrowd"]) for t in free]
            if overlaps and max(overlaps) >= 0.5:
                last_best = max(range(len(free)), key=lambda i: (overlaps[i], i))
                used.append(free[last_best])
                if counts:
                    result.append((d["score"], "TP", overlaps[last_best]))
                break
        else:
            if low <= d["area"] <= high:
                result.append((d["score"], "FP", 0.0))
    return result


def brute_force(truths: list[dict], detections: list[dict], num_images: int, low: float, high: float) -> dict:
    """One class within one area range, cut after every counted detection."""
    num_gt = sum(not t["iscrowd"] and low <= t["area"] <= high for t in truths)
    if num_gt == 0:
        return NO_GROUND_TRUTH
    counted = []
    for image_id in range(1, num_images + 1):
        of_image = [[o for o in objects if o["image_id"] == image_id] for objects in (truths, detections)]
        counted += outcomes(*of_image, low, high)
    counted.sort(key=lambda outcome: -outcome[0])
    if not any(kind == "TP" for _, kind, _ in counted):
        return NO_TRUE_POSITIVE
    best = {"oLRP": math.inf}
    tp = fp = error = 0
    for score, kind, overlap in counted:
        tp, fp = tp + (kind == "TP"), fp + (kind == "FP")
        error += 1 - overlap if kind == "TP" else 0  # added in this order, rounded as it comes: minima may tie
        fn = num_gt - tp
        lrp = (error / 0.5 + fp + fn) / (tp + fp + fn)
        if lrp < best["oLRP"]:
            best = {
                "oLRP": lrp,
                "oLRP_loc": error / tp if tp else None,
                "oLRP_fp": fp / (tp + fp),
                "oLRP_fn": fn / num_gt,
                "lrp_threshold": score,
            }
    return best


@st.composite
def scenes(draw: st.DrawFn) -> tuple[int, int, list[dict], list[dict]]:
    """Few boxes on a coarse grid, so that IoUs and scores tie, cross the area limits and hit crowds."""
    num_images, num_classes = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    corner, side = st.sampled_from((0, 8, 16)), st.sampled_from((16, 24, 32, 48, 96, 104))

    def objects(**more: st.SearchStrategy) -> list[dict]:
        bbox = st.tuples(corner, corner, side, side).map(list)
        make = st.builds(box_object, st.integers(1, num_images), st.integers(1, num_classes), bbox, **more)
        return draw(st.lists(make, max_size=12))

    truths = objects(iscrowd=st.sampled_from((0, 0, 0, 1)))
    for truth in truths:  # COCO's areas are those of masks, smaller than the boxes
        truth["area"] *= draw(st.sampled_from((1, 0.7)))
    return num_images, num_classes, truths, objects(score=st.sampled_from((0.2, 0.4, 0.5, 0.7, 0.9)))


@settings(max_examples=200, deadline=None)
@given(scenes())
def test_equals_brute_force(scene):
    num_images, num_classes, truths, detections = scene
    result = lrp_of(truths, detections, num_images, num_classes)
    expected = {name: {} for name in AREAS}
    for name, (low, high) in AREAS.items():
        for category in range(1, num_classes + 1):
            of_class = [[o for o in objects if o["category_id"] == category] for objects in (truths, detections)]
            expected[name][category] = brute_force(*of_class, num_images, low, high)

    for category, values in expected["oLRP"].items():
        assert result["per_class"][category] == pytest.approx(values, abs=1e-12)
    means = {name: [v["oLRP"] for v in values.values()] for name, values in expected.items()}
    for name in ("oLRP_loc", "oLRP_fp", "oLRP_fn"):
        means[name] = [values[name] for values in expected["oLRP"].values()]
    for name, values in means.items():
        defined = [value for value in values if value is not None]
        assert result[name] == pytest.approx(np.mean(defined) if defined else -1, abs=1e-12), name


def test_equals_the_authors_evaluator(shared):
    expected = json.loads((shared / "golden/lrp/expected.json").read_text())
    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth = COCO(shared / "data/coco_tiny/annotations/instances_val2017.json")
        result = evaluate_lrp(matched(ground_truth, ground_truth.loadRes(str(shared / "golden/lrp/detections.json"))))
    for name in (*AREAS, "oLRP_loc", "oLRP_fp", "oLRP_fn"):
        assert result[name] == pytest.approx(expected["metrics"][name], abs=1e-6), name
    for key, name in (("olrp_per_category", "oLRP"), ("lrp_optimal_threshold_per_category", "lrp_threshold")):
        assert len(expected[key]) == len(result["per_class"])
        for category, value in expected[key].items():
            value = None if value == -1 else value
            assert result["per_class"][int(category)][name] == pytest.approx(value, abs=1e-6), category


def test_hand_worked_case():
    truths = [box_object(1, 1, [0, 0, 10, 10]), box_object(1, 1, [100, 0, 10, 10])]
    detections = [
        box_object(1, 1, [0, 0, 10, 8], score=0.9),  # IoU 80 / 100
        box_object(1, 1, [50, 0, 10, 10], score=0.8),  # false
        box_object(1, 1, [100, 0, 10, 6], score=0.7),  # IoU 60 / 100
        box_object(1, 1, [50, 50, 10, 10], score=0.6),  # false
    ]
    # cuts: (.4 + 0 + 1)/2 = .7, (.4 + 1 + 1)/3 = .8, (.4 + .8 + 1 + 0)/3 = .7333, (1.2 + 2)/4 = .8
    result = lrp_of(truths, detections)
    expected = {"oLRP": 0.7, "oLRP_loc": 0.2, "oLRP_fp": 0, "oLRP_fn": 0.5, "lrp_threshold": 0.9}
    assert result["per_class"][1] == pytest.approx(expected)
    assert (result["oLRP_s"], result["oLRP_m"], result["oLRP_l"]) == (pytest.approx(0.7), -1, -1)


def test_iou_is_read_in_the_original_order_of_the_ground_truth():
    # COCOeval sorts the crowd behind the object, but leaves the columns of its IoU matrix where they were.
    truths = [box_object(1, 1, [0, 0, 40, 40], iscrowd=1), box_object(1, 1, [0, 0, 10, 10])]
    result = lrp_of(truths, [box_object(1, 1, [0, 0, 10, 8], score=0.5)])
    assert result["oLRP_loc"] == pytest.approx(0.2)  # the crowd's would be 0


def test_detections_in_a_crowd_are_neither_true_nor_false():
    truths = [box_object(1, 1, [0, 0, 10, 10]), box_object(1, 1, [100, 100, 50, 50], iscrowd=1)]
    in_crowd = [box_object(1, 1, [100 + 10 * i, 100, 10, 10], score=0.9) for i in range(3)]
    result = lrp_of(truths, [*in_crowd, box_object(1, 1, [0, 0, 10, 10], score=0.3)])
    assert (result["oLRP"], result["oLRP_fp"], result["per_class"][1]["lrp_threshold"]) == (0, 0, 0.3)


def test_of_equal_minima_the_first_counts():
    truths = [box_object(1, 1, [0, 0, 8, 8]), box_object(1, 1, [50, 0, 8, 8])]
    half = box_object(1, 1, [50, 0, 8, 4], score=0.8)  # IoU 0.5: its error of 1 replaces one FN
    # cuts: (.5 + 1)/2, (.5 + 1 + 0)/2
    result = lrp_of(truths, [box_object(1, 1, [0, 0, 8, 6], score=0.9), half])["per_class"][1]
    assert result == {"oLRP": 0.75, "oLRP_loc": 0.25, "oLRP_fp": 0, "oLRP_fn": 0.5, "lrp_threshold": 0.9}


def test_equal_scores_keep_the_order_of_the_images():
    sides = [4, 5, 6, 7, 8] * 20  # IoU side / 8
    truths = [box_object(i, 1, [0, 0, 8, 8]) for i in range(1, 101)]
    detections = [box_object(i, 1, [0, 0, 8, side], score=0.5 + i // 50 / 4) for i, side in enumerate(sides, start=1)]
    detections += [box_object(i, 1, [50, 0, 8, 8], score=0.5) for i in range(1, 101, 3)]
    result = lrp_of(truths, detections[::-1], num_images=100)["per_class"][1]
    assert result == pytest.approx(brute_force(truths, detections[::-1], 100, *AREAS["oLRP"]), abs=1e-12)


def test_first_minimum_can_lie_before_the_first_true_positive():
    detections = [box_object(1, 1, [50, 50, 8, 8], score=0.9), box_object(1, 1, [0, 0, 8, 4], score=0.8)]
    result = lrp_of([box_object(1, 1, [0, 0, 8, 8])], detections)["per_class"][1]  # IoU 0.5: 1 at every cut
    assert result == {"oLRP": 1, "oLRP_loc": None, "oLRP_fp": 1, "oLRP_fn": 1, "lrp_threshold": 0.9}


def test_class_without_a_true_positive_is_left_out_of_loc_and_fp():
    truths = [box_object(1, category, [0, 0, 10, 10]) for category in (1, 2, 3)]
    detections = [box_object(1, 1, [0, 0, 10, 8], score=0.5), box_object(1, 2, [50, 50, 10, 10], score=0.9)]
    result = lrp_of(truths, detections, num_classes=4)
    assert result["per_class"][2] == result["per_class"][3] == NO_TRUE_POSITIVE  # only a false one; none at all
    assert result["per_class"][4] == NO_GROUND_TRUTH
    assert result["oLRP"] == pytest.approx((0.4 + 1 + 1) / 3)
    assert (result["oLRP_loc"], result["oLRP_fp"]) == (pytest.approx(0.2), 0)
    assert result["oLRP_fn"] == pytest.approx(2 / 3)


def test_nothing_detected_and_nothing_to_detect():
    nothing = lrp_of([box_object(1, 1, [0, 0, 10, 10])], [])
    assert (nothing["oLRP"], nothing["oLRP_fn"], nothing["oLRP_loc"], nothing["oLRP_fp"]) == (1, 1, -1, -1)
    no_truth = lrp_of([], [box_object(1, 1, [0, 0, 10, 10], score=0.5)])
    assert {value for name, value in no_truth.items() if name != "per_class"} == {-1}


def test_needs_a_matching_at_half_overlap(capsys):
    coco_eval = COCOeval(coco(1, 1, []), coco(1, 1, []), "bbox")
    with pytest.raises(ValueError, match=r"evaluate\(\)"):
        evaluate_lrp(coco_eval)
    coco_eval.params.iouThrs = np.array([0.75])
    coco_eval.evaluate()
    with pytest.raises(ValueError, match=r"0\.5"):
        evaluate_lrp(coco_eval)


@pytest.mark.parametrize("name", ["imgIds", "catIds"])
def test_an_empty_selection_has_nothing_to_detect(capsys, name):
    coco_eval = COCOeval(coco(1, 1, [box_object(1, 1, [0, 0, 10, 10])]), coco(1, 1, []), "bbox")
    setattr(coco_eval.params, name, [])
    coco_eval.evaluate()
    assert evaluate_lrp(coco_eval)["oLRP"] == -1


def test_needs_an_evaluation_by_class(capsys):
    coco_eval = COCOeval(coco(1, 1, []), coco(1, 1, []), "bbox")
    coco_eval.params.useCats = 0
    coco_eval.evaluate()
    with pytest.raises(ValueError, match=r"params\.useCats 1, not 0"):
        evaluate_lrp(coco_eval)
