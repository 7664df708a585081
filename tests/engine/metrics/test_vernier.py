"""oLRP against another implementation, vernier's, given our thresholds as the grid that it searches."""

import json
from pathlib import Path

import numpy as np
import pytest
from optimal_lrp_worker import batches
from test_optimal_lrp import in_coco_files

from engine.metrics import evaluate_lrp, match_detections

vernier = pytest.importorskip("vernier.instance")


def assert_equal_to_vernier(content: dict, results: list[dict]) -> None:
    """Its localisation part is twice ours: it divides 1 - IoU by 1 - τ. Without a true positive its false positive
    part is 0 or undefined, and ours is undefined, so that the means of this part differ."""
    ours = evaluate_lrp(match_detections(content, results))
    classes = ours["per_class"]
    grid = sorted({v["lrp_threshold"] for v in classes.values() if v["lrp_threshold"] is not None})
    theirs = vernier.optimal_lrp(json.dumps(content).encode(), json.dumps(results).encode(), tau_grid=grid)
    means = {"oLRP": theirs.olrp, "oLRP_loc": theirs.loc / 2, "oLRP_fn": theirs.fn}
    assert {name: ours[name] for name in means} == pytest.approx(means, abs=1e-9)
    assert [row.category_id for row in theirs.per_class] == list(classes) and grid
    for row in theirs.per_class:
        found = {name: np.nan if value is None else value for name, value in classes[row.category_id].items()}
        names = {"oLRP": row.olrp, "oLRP_loc": row.olrp_loc / 2, "oLRP_fn": row.olrp_fn, "lrp_threshold": row.tau}
        if not np.isnan(found["oLRP_fp"]):
            names["oLRP_fp"] = row.olrp_fp
        assert {name: found[name] for name in names} == pytest.approx(names, abs=1e-9, nan_ok=True)


def test_on_coco(shared: Path) -> None:
    content = json.loads((shared / "data/coco_tiny/annotations/instances_val2017.json").read_text())
    assert_equal_to_vernier(content, json.loads((shared / "golden/lrp/detections.json").read_text()))


def test_with_crowds_and_absent_classes() -> None:
    content, results = in_coco_files(*batches(40))
    content["images"] = [image | {"width": 400, "height": 400} for image in content["images"]]
    for index, annotation in enumerate(content["annotations"], start=1):
        annotation |= {"id": index, "iscrowd": int(annotation.get("iscrowd", 0)), "area": annotation.get("area", 1.0)}
    assert_equal_to_vernier(content, results)
