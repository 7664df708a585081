"""Confusion, error budget and curves: a case worked by hand, and sums that must equal AP and oLRP."""

import json

import numpy as np
import pytest

from engine.metrics.coco_metrics import match_detections, metrics_of
from engine.reporting.analysis import analyse


def coco_file(path, objects, categories=("A", "B", "C"), num_images=3):
    """objects: (image id, category id, bbox, iscrowd)."""
    content = {
        "images": [{"id": i, "file_name": f"{i}.jpg"} for i in range(1, num_images + 1)],
        "categories": [{"id": i, "name": name} for i, name in enumerate(categories, start=1)],
        "annotations": [
            {"image_id": image, "category_id": category, "bbox": bbox, "iscrowd": crowd}
            for image, category, bbox, crowd in objects
        ],
    }
    path.write_text(json.dumps(content))
    return path


def results(*detections):
    return [
        {"image_id": image, "category_id": category, "bbox": bbox, "score": score}
        for image, category, bbox, score in detections
    ]


@pytest.fixture
def by_hand(tmp_path):
    truth = coco_file(
        tmp_path / "truth.json",
        [
            (1, 1, [0, 0, 10, 10], 0),
            (1, 1, [100, 0, 10, 10], 0),
            (1, 2, [200, 0, 10, 10], 0),
            (1, 2, [300, 0, 50, 50], 1),
            (2, 2, [0, 0, 10, 10], 0),
        ],
    )
    found = results(
        (1, 1, [200, 0, 10, 10], 0.95),  # A on the B that nothing else finds
        (1, 1, [0, 0, 10, 8], 0.9),  # IoU 0.8
        (1, 1, [50, 50, 10, 10], 0.1),  # below A's optimal cut
        (1, 2, [310, 10, 10, 10], 0.99),  # in the crowd: does not count
        (2, 2, [70, 70, 10, 10], 0.75),  # on nothing
        (2, 2, [0, 0, 10, 9], 0.7),  # IoU 0.9
        (3, 3, [0, 0, 10, 10], 0.9),  # of a class without ground truth
    )
    # A, cuts: (0 + 1 + 2)/3 = 1, (.4 + 1 + 1)/3 = .8, (.4 + 2 + 1)/4 = .85;  B: (0 + 1 + 2)/3 = 1, (.2 + 1 + 1)/3
    return match_detections(truth, found)


def test_confusion_worked_by_hand(by_hand):
    assert analyse(by_hand).confusion.tolist() == [
        [1, 0, 0, 1],  # A: one found, one missed
        [1, 1, 0, 0],  # B: one taken for A, one found
        [0, 0, 0, 0],  # C
        [0, 1, 0, 0],  # no object: one B
    ]


def test_error_budget_worked_by_hand(by_hand):
    analysis = analyse(by_hand)
    a, b, c = analysis.classes
    assert (a.tp, a.fp, a.fn, a.loc_error) == (1, 1, 1, pytest.approx(0.2))
    assert a.budget == pytest.approx((0.4 / 3, 1 / 3, 1 / 3))
    assert b.budget == pytest.approx((0.2 / 3, 1 / 3, 1 / 3))
    assert c is None
    assert analysis.budget == pytest.approx((0.1, 1 / 3, 1 / 3))
    assert sum(analysis.budget) == pytest.approx(metrics_of(by_hand)["oLRP"])


def test_images_worked_by_hand(by_hand):
    analysis = analyse(by_hand)
    assert analysis.images[1].lrp == pytest.approx((0.4 + 1 + 2) / 4)
    assert analysis.images[2].lrp == pytest.approx((0.2 + 1) / 2)
    assert analysis.best_and_worst(4) == ([2], [1])  # image 3 has nothing that counts


def test_which_they_are_worked_by_hand(by_hand):
    outcomes = analyse(by_hand).outcomes
    assert (outcomes[1].right, outcomes[1].false, outcomes[1].missed) == ([1], [0], [1, 2])
    assert (outcomes[2].right, outcomes[2].false, outcomes[2].missed) == ([5], [4], [])


def test_no_image_as_good_as_one_of_the_best_is_among_the_worst(tmp_path):
    box = [0, 0, 10, 10]
    objects = [(image, 1, box, 0) for image in (1, 2, 3, 4, 5, 6)] + [(6, 1, [50, 0, 10, 10], 0)]
    truth = coco_file(tmp_path / "t.json", objects, num_images=6)
    nothing = analyse(match_detections(truth, []))
    assert nothing.best_and_worst(2) == ([1, 2], [6])  # all have LRP 1; image 6 misses two objects
    assert nothing.best_and_worst(4) == ([1, 2, 3], [6])
    perfect = [(image, 1, box, 0.9) for image in (1, 2, 3, 4, 5)]
    some = analyse(match_detections(truth, results(*perfect)))
    assert some.best_and_worst(4) == ([1, 2, 3], [6])  # 4 and 5 are as perfect as these


def test_one_missed_object_explains_one_false_positive(tmp_path):
    found = results((1, 1, [0, 0, 4, 4], 0.9), (1, 1, [0, 0, 4, 5], 0.8), (1, 1, [0, 0, 10, 10], 0.7))
    truth = coco_file(tmp_path / "t.json", [(1, 1, [0, 0, 10, 10], 0), (1, 2, [0, 0, 4, 5], 0)], ["A", "B", "C"])
    # cut of A after 0.7: (0 + 2 + 0)/3; both false ones overlap B with IoU 0.8 and 1
    assert analyse(match_detections(truth, found)).confusion.tolist() == [
        [1, 0, 0, 0],
        [1, 0, 0, 0],
        [0, 0, 0, 0],
        [1, 0, 0, 0],
    ]


def test_adds_up_to_the_metrics_on_coco(shared):
    matches = match_detections(
        shared / "data/coco_tiny/annotations/instances_val2017.json", shared / "golden/lrp/detections.json"
    )
    analysis, metrics = analyse(matches), metrics_of(matches)
    assert sum(analysis.budget) == pytest.approx(metrics["oLRP"], abs=1e-12)
    tp = np.diag(analysis.confusion)[:-1]
    assert analysis.confusion[:-1].sum(axis=1).tolist() == analysis.num_objects.tolist()
    for label, name in enumerate(analysis.class_names):
        errors, values = analysis.classes[label], metrics["per_class"][name]
        if errors is None:
            assert values["oLRP"] is None
            continue
        assert errors.lrp == pytest.approx(values["oLRP"], abs=1e-12)
        assert (errors.tp, errors.fp) == (tp[label], analysis.confusion[:, label].sum() - tp[label])
        assert analysis.precision["0.50:0.95"][label].mean() == pytest.approx(values["AP"], abs=1e-12)
    for name, iou in (("AP", "0.50:0.95"), ("AP50", "0.50"), ("AP75", "0.75")):
        assert np.nanmean(analysis.precision[iou]) == pytest.approx(metrics[name], abs=1e-12)
    assert sum(image.tp for image in analysis.images.values()) == tp.sum()
    assert sum(image.fn for image in analysis.images.values()) == analysis.num_objects.sum() - tp.sum()
    loc_error = sum(errors.loc_error for errors in analysis.classes if errors is not None)
    assert sum(image.loc_error for image in analysis.images.values()) == pytest.approx(loc_error)


def test_a_large_confusion_matrix_is_cut_to_the_most_confused(tmp_path):
    names = [f"class {i}" for i in range(30)]
    box = [0, 0, 10, 10]
    objects = [(1, label, [20 * label, 0, 10, 10], 0) for label in range(1, 31)]
    found = [(1, label, [20 * label, 0, 10, 10], 0.5) for label in range(1, 29)]
    objects += [(2, 30, box, 0)]
    found += [(2, 3, box, 0.9)]  # class 2 found where class 29 is
    matches = match_detections(coco_file(tmp_path / "t.json", objects, names), results(*found))
    analysis = analyse(matches)
    shown, matrix = analysis.most_confused()
    assert len(shown) == 21 and matrix.shape == (22, 22)
    assert shown[-1] == "10 other classes"
    assert "class 2" in shown and "class 29" in shown
    assert matrix[shown.index("class 29"), shown.index("class 2")] == 1
    assert matrix.sum() == analysis.confusion.sum()
    assert matrix[:-1].sum() == len(objects)


def test_nothing_detected_and_nothing_to_detect(tmp_path):
    truth = coco_file(tmp_path / "t.json", [(1, 1, [0, 0, 10, 10], 0)])
    analysis = analyse(match_detections(truth, []))
    assert analysis.budget == (0, 0, 1)
    assert analysis.confusion.tolist() == [[0, 0, 0, 1], [0] * 4, [0] * 4, [0] * 4]
    empty = analyse(match_detections(coco_file(tmp_path / "e.json", []), results((1, 1, [0, 0, 5, 5], 0.5))))
    assert empty.budget is None
    assert empty.images == {}
    assert empty.confusion.sum() == 0
