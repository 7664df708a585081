"""Objects and detections of a pycocotools evaluation, as arrays."""

from typing import TYPE_CHECKING

import numpy as np

from .instances import Detections, GroundTruth
from .matching import AREAS, TAU

if TYPE_CHECKING:
    from pycocotools.cocoeval import COCOeval


def instances_of(coco_eval: "COCOeval") -> tuple[GroundTruth, Detections, int]:
    """Objects and detections of the images and classes that were evaluated, and how many detections of an image and
    class count.

    Raises:
        ValueError: `evaluate()` has not run, or not class by class on boxes with TAU and COCO's four area ranges.
    """
    params = coco_eval._paramsEval
    if not params:
        raise ValueError("evaluate_lrp needs coco_eval.evaluate() to have run")
    areas = {name: tuple(limits) for name, limits in zip(params.areaRngLbl, params.areaRng, strict=False)}
    if TAU not in params.iouThrs or not AREAS.items() <= areas.items():
        raise ValueError("evaluate_lrp needs 0.5 in params.iouThrs and the areas all, small, medium, large")
    if params.iouType != "bbox":
        raise ValueError(f"evaluate_lrp needs boxes: an evaluation with iouType 'bbox', not {params.iouType!r}")
    if not params.useCats:
        raise ValueError("evaluate_lrp needs classes: an evaluation with params.useCats 1, not 0")
    image_ids, category_ids = np.asarray(params.imgIds).tolist(), np.asarray(params.catIds).tolist()
    image_of, label_of = ({key: place for place, key in enumerate(ids)} for ids in (image_ids, category_ids))
    objects, detections = (
        [
            (image_of[image], label_of[label], entry)
            for (image, label), entries in held.items()
            if image in image_of and label in label_of  # of an empty selection pycocotools loads all
            for entry in entries
        ]
        for held in (coco_eval._gts, coco_eval._dts)
    )
    truth = GroundTruth(
        image_ids,
        category_ids,
        [coco_eval.cocoGt.cats[category_id]["name"] for category_id in category_ids],
        *_arrays(objects),
        areas=np.array([entry["area"] for *_, entry in objects], dtype=np.float64),
        crowd=np.array([entry["iscrowd"] for *_, entry in objects], dtype=bool),
    )
    scores = np.array([entry["score"] for *_, entry in detections], dtype=np.float64)
    return truth, Detections(*_arrays(detections), scores), max(params.maxDets)


def _arrays(instances: list[tuple[int, int, dict]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images, labels and boxes."""
    images = np.array([image for image, *_ in instances], dtype=np.int64)
    labels = np.array([label for _, label, _ in instances], dtype=np.int64)
    return images, labels, np.array([entry["bbox"] for *_, entry in instances], dtype=np.float64).reshape(-1, 4)
