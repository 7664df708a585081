"""From detections in COCO's results format to COCO AP and AR, oLRP and the values of each class."""

import contextlib
import io
import json
import logging
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from reprlib import repr as short_repr

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from .coco_eval import BoxEvaluation
from .lrp import evaluate_lrp

COCO_STATS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
RESULT_KEYS = ("image_id", "category_id", "bbox", "score")
EXPECTED_RESULTS = 'expected a list of {"image_id", "category_id", "bbox": [x, y, width, height], "score"}'
EXPECTED_BOX = "expected four numbers [x, y, width, height], none infinite, no side negative"
EXPECTED_ANNOTATIONS = "expected COCO format with images, categories and annotations"
REQUIRED = {  # of a COCO annotation file
    "images": {"id": int},
    "categories": {"id": int, "name": str},
    "annotations": {"image_id": int, "category_id": int, "bbox": list},
}

logger = logging.getLogger(__name__)


class DetectionsError(ValueError):
    """Results or annotations that cannot be evaluated: one line with the file, the place and the remedy."""

    exit_status = 2


def evaluate_detections(
    annotations: str | Path | COCO | dict,
    detections: str | Path | Sequence[dict],
    category_ids: Sequence[int] | None = None,
    image_ids: Sequence[int] | None = None,
) -> dict:
    """All metrics of a set of detections: `metrics_of(match_detections(...))`."""
    return metrics_of(match_detections(annotations, detections, category_ids, image_ids))


def match_detections(
    annotations: str | Path | COCO,
    detections: str | Path | Sequence[dict],
    category_ids: Sequence[int] | None = None,
    image_ids: Sequence[int] | None = None,
) -> COCOeval:
    """Detections matched to the ground truth by COCO's rules. The arguments are not changed and nothing is printed.

    Args:
        annotations: file in COCO format, or its content. Ids, names and boxes are enough: a missing `area`
            is that of the box, a missing `iscrowd` is 0.
        detections: results file or its content, dicts of `image_id`, `category_id`, `score` and `bbox` (x, y,
            width, height in pixels). May be empty.
        category_ids, image_ids: evaluate only these (default: all in `annotations`).
    Returns:
        the evaluation after `evaluate()`, `accumulate()` and `summarize()`. The id of a detection is its position
        in `detections`, from 1; that of an object its position in the file, from 1.
    Raises:
        DetectionsError: a file is missing or malformed, or a detection names an unknown image or category.
    """
    coco_gt, gt_name = _load_annotations(annotations)
    coco_dt = _load_results(detections, coco_gt, gt_name)
    coco_eval = BoxEvaluation(coco_gt, coco_dt, "bbox")
    if category_ids is not None:
        coco_eval.params.catIds = list(category_ids)
    if image_ids is not None:
        coco_eval.params.imgIds = list(image_ids)
    with contextlib.redirect_stdout(io.StringIO()):
        coco_eval.evaluate()
        coco_eval.accumulate()
        coco_eval.summarize()
    return coco_eval


def metrics_of(coco_eval: COCOeval) -> dict:
    """All metrics of matched detections.

    Returns:
        `AP` ... `ARl`, `oLRP` ... `oLRP_l`: fractions of 1, -1 where nothing defines the value; and
        `per_class`: category name -> {AP, oLRP, lrp_threshold}, None where undefined (see `evaluate_lrp`).
    """
    metrics = dict(zip(COCO_STATS, coco_eval.stats.tolist(), strict=True)) | evaluate_lrp(coco_eval)
    metrics["per_class"] = {
        coco_eval.cocoGt.cats[category_id]["name"]: {
            "AP": _class_ap(coco_eval, position),
            "oLRP": values["oLRP"],
            "lrp_threshold": values["lrp_threshold"],
        }
        for position, (category_id, values) in enumerate(metrics["per_class"].items())
    }
    return metrics


def _class_ap(coco_eval: COCOeval, category: int) -> float | None:
    """AP of one class (position in catIds) over all areas at 100 detections; None without ground truth."""
    precision = coco_eval.eval["precision"][:, :, category, 0, -1]
    return float(precision.mean()) if (precision > -1).all() else None


def _load_annotations(annotations: str | Path | COCO | dict) -> tuple[COCO, str]:
    """The ground truth, completed and renumbered, and what to call it in messages."""
    if isinstance(annotations, COCO):
        content, name = annotations.dataset, "annotations"
    elif isinstance(annotations, dict):
        content, name = annotations, "annotations"
    else:
        content, name = _read_json(annotations), str(annotations)
    _check_annotations(content, name)
    usable = [entry for entry in content["annotations"] if all(map(math.isfinite, entry["bbox"]))]
    if len(usable) < len(content["annotations"]):
        num_dropped = len(content["annotations"]) - len(usable)
        logger.warning("%s: left out %d annotations whose bbox is not finite", name, num_dropped)
    ground_truth = [
        {
            "id": index,  # from 1: COCOeval takes a match with id 0 for none; and some files repeat ids
            "image_id": annotation["image_id"],
            "category_id": annotation["category_id"],
            "bbox": annotation["bbox"],
            "area": annotation["area"] if _is_number(annotation.get("area")) else _box_area(annotation),
            "iscrowd": int(bool(annotation.get("iscrowd"))),
        }
        for index, annotation in enumerate(usable, start=1)
    ]
    return _index(content["images"], content["categories"], ground_truth), name


def _check_annotations(content: object, name: str) -> None:
    for section, keys in REQUIRED.items():
        if not isinstance(content, dict) or not isinstance(content.get(section), list):
            raise DetectionsError(f"{name}: has no list {section!r}; {EXPECTED_ANNOTATIONS}")
        for index, entry in enumerate(content[section]):
            for key, kind in keys.items():
                if not isinstance(entry, dict) or not isinstance(entry.get(key), kind):
                    raise DetectionsError(f"{name}: {section}[{index}] lacks a valid {key!r}; {EXPECTED_ANNOTATIONS}")
            if section == "annotations" and not _is_four_numbers(entry["bbox"]):
                raise DetectionsError(
                    f"{name}: {section}[{index}] has bbox {short_repr(entry['bbox'])}; {EXPECTED_BOX}"
                )
    for section, key in (("images", "id"), ("categories", "id"), ("categories", "name")):
        for value, count in Counter(entry[key] for entry in content[section]).items():
            if count > 1:
                raise DetectionsError(f"{name}: {count} {section} have {key} {value!r}; give each its own")


def _load_results(detections: str | Path | Sequence[dict], coco_gt: COCO, gt_name: str) -> COCO:
    name = "detections"
    if isinstance(detections, str | Path):
        name, detections = str(detections), _read_json(detections)
        if not isinstance(detections, list):
            raise DetectionsError(f"{name}: is not a list; {EXPECTED_RESULTS}")
    results = []
    for index, detection in enumerate(detections):
        problem = _result_problem(detection, coco_gt, gt_name)
        if problem:
            raise DetectionsError(f"{name}: detection {index} {problem}")
        result = {key: detection[key] for key in RESULT_KEYS}
        results.append(result | {"id": index + 1, "area": _box_area(detection), "iscrowd": 0})
    return _index(coco_gt.dataset["images"], coco_gt.dataset["categories"], results)


def _result_problem(detection: object, coco_gt: COCO, gt_name: str) -> str | None:
    if not isinstance(detection, dict):
        return f"is not an object; {EXPECTED_RESULTS}"
    for key in RESULT_KEYS:
        if key not in detection:
            return f"has no {key!r}; {EXPECTED_RESULTS}"
    bbox = detection["bbox"]
    if not _is_four_numbers(bbox) or not all(map(math.isfinite, bbox)) or min(bbox[2:]) < 0:
        return f"has bbox {short_repr(bbox)}; {EXPECTED_BOX}"
    if not _is_number(detection["score"]):
        return f"has score {short_repr(detection['score'])}; expected a finite number"
    for key, known in (("image_id", coco_gt.imgs), ("category_id", coco_gt.cats)):
        if not isinstance(detection[key], int) or detection[key] not in known:
            return f"has {key} {short_repr(detection[key])}, unknown in {gt_name}; use the ids of that file"
    return None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _is_four_numbers(bbox: object) -> bool:
    return isinstance(bbox, list | tuple) and len(bbox) == 4 and all(isinstance(v, int | float) for v in bbox)


def _box_area(entry: dict) -> float:
    return entry["bbox"][2] * entry["bbox"][3]


def _read_json(path: str | Path) -> object:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise DetectionsError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except ValueError as error:  # not JSON, or not even text
        raise DetectionsError(f"{path}: is not JSON ({error}); check the path") from error


def _index(images: list[dict], categories: list[dict], annotations: list[dict]) -> COCO:
    coco = COCO()
    coco.dataset = {"images": images, "categories": categories, "annotations": annotations}
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco
