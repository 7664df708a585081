"""Annotations and results in COCO's format, from files or in memory, checked and as arrays."""

import gc
import json
import logging
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from operator import itemgetter
from pathlib import Path
from reprlib import repr as short_repr
from typing import TYPE_CHECKING

import numpy as np

from .instances import Detections, GroundTruth

if TYPE_CHECKING:
    from pycocotools.coco import COCO

RESULT_KEYS = ("image_id", "category_id", "bbox", "score")
EXPECTED_RESULTS = 'expected a list of {"image_id", "category_id", "bbox": [x, y, width, height], "score"}'
EXPECTED_BOX = "expected four numbers [x, y, width, height], none infinite, no side negative"
EXPECTED_ANNOTATIONS = "expected COCO format with images, categories and annotations"
REQUIRED = {  # of a COCO annotation file
    "images": {"id": int},
    "categories": {"id": int, "name": str},
    "annotations": {"image_id": int, "category_id": int, "bbox": list},
}
CROWD_TEXTS = {"0": False, "false": False, "1": True, "true": True}

logger = logging.getLogger(__name__)


class DetectionsError(ValueError):
    """Results or annotations that cannot be evaluated: one line with the file, the place and the remedy."""

    exit_status = 2


def read_coco(
    annotations: "str | Path | COCO | dict",
    detections: str | Path | Sequence[dict],
    category_ids: Sequence[int] | None = None,
    image_ids: Sequence[int] | None = None,
) -> tuple[GroundTruth, Detections]:
    """Ground truth and detections of the images and categories to evaluate; arguments and errors as of
    `match_detections`."""
    truth_name, results_name = "annotations", "detections"
    if isinstance(annotations, str | Path):
        truth_name, annotations = str(annotations), _read_json(annotations)
    content = getattr(annotations, "dataset", annotations)  # of pycocotools' COCO
    _check_annotations(content, truth_name)
    names = {category["id"]: category["name"] for category in content["categories"]}
    known = {"image_id": [image["id"] for image in content["images"]], "category_id": list(names)}
    # of each id of the file its position among those to evaluate, or -1
    image_of, label_of = (
        dict.fromkeys(ids, -1) | {key: position for position, key in enumerate(sorted({*ids}.intersection(wanted)))}
        for ids, wanted in (
            (known["image_id"], known["image_id"] if image_ids is None else image_ids),
            (known["category_id"], known["category_id"] if category_ids is None else category_ids),
        )
    )
    truth = _ground_truth(content["annotations"], image_of, label_of, names, truth_name)
    if isinstance(detections, str | Path):
        results_name, detections = str(detections), _read_json(detections)
        if not isinstance(detections, list):
            raise DetectionsError(f"{results_name}: is not a list; {EXPECTED_RESULTS}")
    try:
        return truth, _detections(detections, image_of, label_of)
    except (TypeError, KeyError, ValueError):
        for index, detection in enumerate(detections):
            if problem := _result_problem(detection, image_of, label_of, truth_name):
                raise DetectionsError(f"{results_name}: detection {index} {problem}") from None
        raise


def _detections(results: Sequence[dict], image_of: dict[int, int], label_of: dict[int, int]) -> Detections:
    """As arrays, column by column. TypeError, KeyError or ValueError where `_result_problem` finds one."""
    _require(results, dict)
    image_ids, category_ids, bboxes, scores = (list(map(itemgetter(key), results)) for key in RESULT_KEYS)
    _require(image_ids, int)
    _require(category_ids, int)
    _require(bboxes, list | tuple)
    if not {4}.issuperset(map(len, bboxes)):
        raise ValueError("not four numbers")
    boxes = _finite_array(list(chain.from_iterable(bboxes))).reshape(-1, 4)
    if (boxes[:, 2:] < 0).any():
        raise ValueError("negative side")
    images, labels = _positions(image_ids, image_of), _positions(category_ids, label_of)
    kept = (images >= 0) & (labels >= 0)
    return Detections(images[kept], labels[kept], boxes[kept], _finite_array(scores)[kept])


def _require(values: Iterable[object], kind: type) -> None:
    if not all(issubclass(found, kind) for found in set(map(type, values))):
        raise TypeError(kind)


def _finite_array(values: list[float]) -> np.ndarray:
    _require(values, int | float)
    try:
        array = np.array(values, dtype=np.float64)
    except OverflowError as error:  # of a long integer
        raise ValueError("not finite") from error
    if not np.isfinite(array).all():
        raise ValueError("not finite")
    return array


def _positions(ids: list[int], position_of: dict[int, int]) -> np.ndarray:
    return np.fromiter(map(position_of.__getitem__, ids), dtype=np.int64, count=len(ids))


def _result_problem(detection: object, image_of: dict, label_of: dict, truth_name: str) -> str | None:
    if not isinstance(detection, dict):
        return f"is not an object; {EXPECTED_RESULTS}"
    for key in RESULT_KEYS:
        if key not in detection:
            return f"has no {key!r}; {EXPECTED_RESULTS}"
    bbox = detection["bbox"]
    if not _is_four_numbers(bbox) or not all(map(_is_number, bbox)) or min(bbox[2:]) < 0:
        return f"has bbox {short_repr(bbox)}; {EXPECTED_BOX}"
    if not _is_number(detection["score"]):
        return f"has score {short_repr(detection['score'])}; expected a finite number"
    for key, known in (("image_id", image_of), ("category_id", label_of)):
        if not isinstance(detection[key], int) or detection[key] not in known:
            return f"has {key} {short_repr(detection[key])}, unknown in {truth_name}; use the ids of that file"
    return None


def _ground_truth(
    annotations: list[dict], image_of: dict[int, int], label_of: dict[int, int], names: dict[int, str], name: str
) -> GroundTruth:
    """Objects as arrays; those of images or categories that are not evaluated or not in the file are left out."""
    usable = [entry for entry in annotations if all(map(_is_number, entry["bbox"]))]
    if len(usable) < len(annotations):
        num_dropped = len(annotations) - len(usable)
        logger.warning("%s: left out %d annotations whose bbox is not finite", name, num_dropped)
    images = np.array([image_of.get(entry["image_id"], -1) for entry in usable], dtype=np.int64)
    labels = np.array([label_of.get(entry["category_id"], -1) for entry in usable], dtype=np.int64)
    boxes = np.array([entry["bbox"] for entry in usable], dtype=np.float64).reshape(-1, 4)
    crowd = np.array([_is_crowd(entry.get("iscrowd"), index, name) for index, entry in enumerate(usable)], dtype=bool)
    areas = [entry.get("area") for entry in usable]
    areas = np.array([area if _is_number(area) else np.nan for area in areas], dtype=np.float64)
    if (areas < 0).any():  # -1 for unknown, in some files
        logger.warning("%s: %d annotations have a negative area; that of the box is taken", name, (areas < 0).sum())
    areas = np.where(areas >= 0, areas, boxes[:, 2] * boxes[:, 3])
    kept = (images >= 0) & (labels >= 0)
    image_ids, category_ids = ([key for key in sorted(ids) if ids[key] >= 0] for ids in (image_of, label_of))
    class_names = [names[category_id] for category_id in category_ids]
    arrays = (array[kept] for array in (images, labels, boxes, areas, crowd))
    return GroundTruth(image_ids, category_ids, class_names, *arrays)


def _is_crowd(value: object, index: int, name: str) -> bool:
    if isinstance(value, str):
        if value.lower() not in CROWD_TEXTS:
            raise DetectionsError(f"{name}: annotations[{index}] has iscrowd {short_repr(value)}; expected 0 or 1")
        return CROWD_TEXTS[value.lower()]
    return bool(value)


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


def _is_number(value: object) -> bool:
    """Whether it is a finite float64, or an integer within its range."""
    return isinstance(value, int | float) and abs(value) <= sys.float_info.max


def _is_four_numbers(bbox: object) -> bool:
    return isinstance(bbox, list | tuple) and len(bbox) == 4 and all(isinstance(v, int | float) for v in bbox)


def _read_json(path: str | Path) -> object:
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise DetectionsError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    try:
        with _no_garbage_collection():
            return json.loads(content)
    except (ValueError, RecursionError) as error:  # not JSON, or not even text
        raise DetectionsError(f"{path}: is not JSON ({error}); check the path") from error


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """The collector would look at a million new objects again and again, which doubles the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
