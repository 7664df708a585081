"""From detections in COCO's results format to COCO AP and AR, oLRP and the values of each class."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .average_precision import coco_stats, precisions
from .coco_files import read_coco
from .lrp import evaluate_lrp, lrp_curve
from .matching import Matches, match
from .thresholds import operating_points

if TYPE_CHECKING:
    from pycocotools.coco import COCO


def evaluate(annotations: "str | Path | COCO | dict", detections: str | Path | Sequence[dict]) -> dict:
    """All metrics, and for each class the score thresholds to deploy with.

    Args:
        annotations, detections: COCO files or their content, as for `match_detections`.
    Returns:
        as `evaluate_detections`; and of each class also `lrp_precision`, `lrp_recall`, `f1`, `f1_threshold`,
        `f1_precision`, `f1_recall` (see `operating_points`), None where undefined.
    Raises:
        DetectionsError: a file is missing or malformed, or a detection names an unknown image or category.
    """
    matches = match_detections(annotations, detections)
    metrics = metrics_of(matches)
    for label, values in enumerate(metrics["per_class"].values()):
        values |= operating_points(lrp_curve(matches, label))
    return metrics


def evaluate_detections(
    annotations: "str | Path | COCO | dict",
    detections: str | Path | Sequence[dict],
    category_ids: Sequence[int] | None = None,
    image_ids: Sequence[int] | None = None,
) -> dict:
    """All metrics of a set of detections: `metrics_of(match_detections(...))`."""
    return metrics_of(match_detections(annotations, detections, category_ids, image_ids))


def match_detections(
    annotations: "str | Path | COCO | dict",
    detections: str | Path | Sequence[dict],
    category_ids: Sequence[int] | None = None,
    image_ids: Sequence[int] | None = None,
) -> Matches:
    """Detections matched to the ground truth by COCO's rules. The arguments are not changed and nothing is printed.

    Args:
        annotations: file in COCO format, its content, or pycocotools' COCO. Ids, names and boxes are enough: a
            missing or negative `area` is that of the box, a missing `iscrowd` is 0.
        detections: results file or its content, dicts of `image_id`, `category_id`, `score` and `bbox` (x, y,
            width, height in pixels). May be empty.
        category_ids, image_ids: evaluate only these (default: all in `annotations`).
    Raises:
        DetectionsError: a file is missing or malformed, or a detection, `category_ids` or `image_ids` name an unknown
            image or category. What can be evaluated all the same is left out with a warning: boxes of objects that are
            not finite, objects of an image or category that `annotations` does not list.
    """
    return match(*read_coco(annotations, detections, category_ids, image_ids))


def metrics_of(matches: Matches) -> dict:
    """All metrics of matched detections.

    Returns:
        `AP` ... `ARl`, `oLRP` ... `oLRP_l`: fractions of 1, -1 where nothing defines the value; and
        `per_class`: category name -> {AP, oLRP, lrp_threshold}, None where undefined (see `evaluate_lrp`).
    """
    precision = precisions(matches)
    metrics = coco_stats(matches, precision) | evaluate_lrp(matches)
    of_classes = zip(matches.truth.class_names, metrics["per_class"].values(), strict=True)
    metrics["per_class"] = {
        name: {
            "AP": _class_ap(precision[:, :, label]),
            "oLRP": values["oLRP"],
            "lrp_threshold": values["lrp_threshold"],
        }
        for label, (name, values) in enumerate(of_classes)
    }
    return metrics


def _class_ap(precision: np.ndarray) -> float | None:
    """AP of one class from its (T, R) precision; None without ground truth."""
    return float(precision.mean()) if (precision > -1).all() else None
