"""Thresholds to deploy with: a case worked by hand, and precision and recall counted again from kept detections."""

import numpy as np
import pytest

from engine.metrics import evaluate, evaluate_detections

POINTS = ("lrp_precision", "lrp_recall", "f1", "f1_threshold", "f1_precision", "f1_recall")


def scene(found: list[tuple[float, float]], num_objects: int) -> tuple[dict, list[dict]]:
    """found: (score, IoU) of detections, the i-th at the i-th of the objects, which lie far apart."""
    box = [[100 * i, 0, 10, 10] for i in range(max(num_objects, len(found)))]
    content = {
        "images": [{"id": 1}],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "absent"}, {"id": 3, "name": "never found"}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": box[i]} for i in range(num_objects)]
        + [{"image_id": 1, "category_id": 3, "bbox": box[0]}],
    }
    results = [
        {"image_id": 1, "category_id": 1, "bbox": [*box[i][:3], 10 * iou], "score": score}
        for i, (score, iou) in enumerate(found)
    ]
    return content, results


def test_worked_by_hand():
    # objects: 4; detections best first: true 1.0, true 0.6, false, true 0.6
    content, results = scene([(0.9, 1), (0.8, 0.6), (0.7, 0.1), (0.6, 0.6)], 4)
    # LRP of the cuts: (0 + 3)/4, (.8 + 2)/4, (.8 + 1 + 2)/5, (1.6 + 1 + 1)/5: the second is smallest, .7
    # F1: 2/5, 4/6, 4/7, 6/8: the last is largest
    values = evaluate(content, results)["per_class"]["a"]
    assert values == {
        "AP": pytest.approx(values["AP"]),
        "oLRP": pytest.approx(0.7),
        "lrp_threshold": 0.8,
        "lrp_precision": 1,
        "lrp_recall": 0.5,
        "f1": 0.75,
        "f1_threshold": 0.6,
        "f1_precision": 0.75,
        "f1_recall": 0.75,
    }


def test_a_threshold_keeps_all_detections_of_its_score():
    content, results = scene([(0.9, 1), (0.9, 0.1), (0.5, 1)], 3)
    # F1 of the first alone would be 2/4, but no threshold parts it from the second: 2/5, and then 4/6
    values = evaluate(content, results[:2])["per_class"]["a"]
    assert [values[name] for name in POINTS] == [0.5, 1 / 3, 0.4, 0.9, 0.5, 1 / 3]
    assert evaluate(content, results)["per_class"]["a"]["f1_threshold"] == 0.5


def test_of_equal_f1_the_higher_threshold():
    content, results = scene([(0.9, 1), (0.5, 0.1), (0.4, 1)], 1)  # F1: 2/2, 2/3, 2/4
    assert evaluate(content, results)["per_class"]["a"]["f1_threshold"] == 0.9
    content, results = scene([(0.9, 1), (0.8, 0.1), (0.7, 0.1), (0.6, 1)], 2)  # F1: 2/3, 2/4, 2/5, 4/6
    assert evaluate(content, results)["per_class"]["a"]["f1_threshold"] == 0.9


def test_undefined_without_objects_or_true_positives():
    per_class = evaluate(*scene([(0.9, 1)], 1))["per_class"]
    assert all(per_class["absent"][name] is None for name in POINTS)
    assert all(per_class["never found"][name] is None for name in POINTS)
    assert per_class["never found"]["oLRP"] == 1 and per_class["never found"]["lrp_threshold"] is None


def test_best_of_all_thresholds_on_random_detections():
    rng = np.random.default_rng(0)
    found = [(round(score, 1), iou) for score, iou in rng.random((60, 2)).tolist()]
    content, results = scene(found, 40)
    metrics = evaluate(content, results)
    values = metrics["per_class"]["a"]

    def precision_recall(threshold: float) -> tuple[float, float]:
        kept = [i < 40 and iou >= 0.5 for i, (score, iou) in enumerate(found) if score >= threshold]
        return sum(kept) / len(kept), sum(kept) / 40

    f1 = {score: 2 * p * r / (p + r) for score, _ in found for p, r in [precision_recall(score)] if p + r}
    assert values["f1"] == pytest.approx(max(f1.values()))
    assert f1[values["f1_threshold"]] == pytest.approx(values["f1"])
    for kind in ("lrp", "f1"):
        expected = precision_recall(values[f"{kind}_threshold"])
        assert (values[f"{kind}_precision"], values[f"{kind}_recall"]) == pytest.approx(expected)


def test_everything_else_is_as_evaluate_detections_has_it():
    content, results = scene([(0.9, 1), (0.8, 0.6), (0.7, 0.1)], 4)
    metrics, expected = evaluate(content, results), evaluate_detections(content, results)
    for values in metrics["per_class"].values():
        for name in POINTS:
            del values[name]
    assert metrics == expected
