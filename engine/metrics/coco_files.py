"""Annotations and results in COCO's format, from files or in memory, checked and as arrays."""

import functools
import gc
import json
import logging
import reprlib
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import DetectionsError
from .file_names import INTEGERS, with_image_ids
from .instances import Detections, GroundTruth, box_areas
from .matching import MAX_DETECTIONS

if TYPE_CHECKING:
    from pycocotools.coco import COCO

RESULT_KEYS = ("image_id", "category_id", "bbox", "score")
EXPECTED_RESULTS = 'expected a list of {"image_id", "category_id", "bbox": [x, y, width, height], "score"}'
EXPECTED_BOX = "expected four numbers [x, y, width, height], none infinite, no side negative"
EXPECTED_ANNOTATIONS = "expected COCO format with images, categories and annotations"
NUMBERS = (*INTEGERS, float, np.floating)
BOXES = (list, tuple, np.ndarray)
REQUIRED: dict[str, dict[str, tuple[type, ...]]] = {  # of COCO annotations
    "images": {"id": INTEGERS},
    "categories": {"id": INTEGERS, "name": (str,)},
    "annotations": {"image_id": INTEGERS, "category_id": INTEGERS, "bbox": BOXES},
}

logger = logging.getLogger(__name__)


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
    image_of = _position_of([image["id"] for image in content["images"]], image_ids)
    label_of = _position_of(list(names), category_ids)
    truth = _ground_truth(content["annotations"], image_of, label_of, names, truth_name)
    _warn_of_crowded_images(truth, truth_name)
    if isinstance(detections, str | Path):
        results_name, detections = str(detections), _read_json(detections)
    if not isinstance(detections, list | tuple):
        raise DetectionsError(f"{results_name}: is not a list; {EXPECTED_RESULTS}")
    results = with_image_ids(detections, content, truth_name, results_name)
    try:
        return truth, _detections(results, image_of, label_of)
    except (TypeError, KeyError, ValueError):
        for index, detection in enumerate(results):
            if problem := _result_problem(detection, image_of, label_of, truth_name):
                raise DetectionsError(f"{results_name}: detection {index} {problem}") from None
        raise


def read_annotations(path: str | Path) -> dict[str, Any]:
    """Content of an annotation file. Raises DetectionsError where it is not one."""
    content = _read_json(path)
    _check_annotations(content, str(path))
    return content


def _position_of(ids: list[int], wanted: Sequence[int] | None) -> dict[int, int]:
    """Of each id of a file its position among those to evaluate, in ascending order; -1 if it is not one of them."""
    evaluated = sorted(ids if wanted is None else {*ids}.intersection(wanted))
    return dict.fromkeys(ids, -1) | {key: position for position, key in enumerate(evaluated)}


def _detections(results: Sequence[dict], image_of: dict[int, int], label_of: dict[int, int]) -> Detections:
    """As arrays, column by column. TypeError, KeyError or ValueError where `_result_problem` finds one."""
    _require(results, dict)
    image_ids, category_ids, bboxes, scores = (list(map(itemgetter(key), results)) for key in RESULT_KEYS)
    _require(image_ids, *INTEGERS)
    _require(category_ids, *INTEGERS)
    _require(bboxes, *BOXES)
    if not {4}.issuperset(map(len, bboxes)):
        raise ValueError("not four numbers")
    boxes = _finite_array(list(chain.from_iterable(bboxes))).reshape(-1, 4)
    if (boxes[:, 2:] < 0).any():
        raise ValueError("negative side")
    images, labels = _positions(image_ids, image_of), _positions(category_ids, label_of)
    kept = (images >= 0) & (labels >= 0)
    return Detections(images[kept], labels[kept], boxes[kept], _finite_array(scores)[kept])


def _require(values: Iterable[object], *kinds: type) -> None:
    if not all(issubclass(found, kinds) and found is not bool for found in set(map(type, values))):
        raise TypeError(f"not all {kinds}")


def _finite_array(values: list[float]) -> np.ndarray:
    _require(values, *NUMBERS)
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
        return f"has bbox {_shown(bbox)}; {EXPECTED_BOX}"
    if not _is_number(detection["score"]):
        return f"has score {_shown(detection['score'])}; expected a finite number"
    for key, known in (("image_id", image_of), ("category_id", label_of)):
        if not isinstance(detection[key], INTEGERS) or isinstance(detection[key], bool):
            kind = type(detection[key]).__name__
            return f"has {key} {_shown(detection[key])} of type {kind}; expected an integer"
        if detection[key] not in known:
            return f"has {key} {_shown(detection[key])}, unknown in {truth_name}; use the ids of that file"
    return None


def _ground_truth(
    annotations: list[dict], image_of: dict[int, int], label_of: dict[int, int], names: dict[int, str], name: str
) -> GroundTruth:
    """Objects as arrays; those of images or categories that are not evaluated or not in the file are left out."""
    usable = [entry for entry in annotations if all(map(_is_number, entry["bbox"]))]
    if len(usable) < len(annotations):
        num_dropped = len(annotations) - len(usable)
        _warn_once(f"{name}: left out {num_dropped} annotations whose bbox is not finite")
    images = np.array([image_of.get(entry["image_id"], -1) for entry in usable], dtype=np.int64)
    labels = np.array([label_of.get(entry["category_id"], -1) for entry in usable], dtype=np.int64)
    boxes = np.array([entry["bbox"] for entry in usable], dtype=np.float64).reshape(-1, 4)
    crowd = np.array([bool(entry.get("iscrowd")) for entry in usable], dtype=bool)
    given = [entry.get("area") for entry in usable]
    areas = np.array([area if _is_number(area) else np.nan for area in given], dtype=np.float64)
    if (areas < 0).any():  # -1 for unknown, in some files
        _warn_once(f"{name}: {(areas < 0).sum()} annotations have a negative area; that of the box is taken")
    areas = np.where(areas >= 0, areas, box_areas(boxes))
    kept = (images >= 0) & (labels >= 0)
    image_ids, category_ids = ([key for key in sorted(ids) if ids[key] >= 0] for ids in (image_of, label_of))
    class_names = [names[category_id] for category_id in category_ids]
    return GroundTruth(
        image_ids, category_ids, class_names, images[kept], labels[kept], boxes[kept], areas[kept], crowd[kept]
    )


def _warn_of_crowded_images(truth: GroundTruth, name: str) -> None:
    objects = Counter(zip(truth.images[~truth.crowd].tolist(), truth.labels[~truth.crowd].tolist(), strict=True))
    crowded = [image for (image, _), count in objects.items() if count > MAX_DETECTIONS]
    if crowded:
        _warn_once(
            f"{name}: more than {MAX_DETECTIONS} objects of one class in {len(set(crowded))} images (the first: image "
            f"{truth.image_ids[crowded[0]]}); COCO counts only the {MAX_DETECTIONS} best detections of each image and "
            "class, so recall and AP cannot reach 1"
        )


@functools.cache
def _warn_once(message: str) -> None:
    """A warning that evaluation after evaluation of a training does not repeat."""
    logger.warning("%s", message)


def _check_annotations(content: Any, name: str) -> None:
    for section, keys in REQUIRED.items():
        if not isinstance(content, dict) or not isinstance(content.get(section), list):
            raise DetectionsError(f"{name}: has no list {section!r}; {EXPECTED_ANNOTATIONS}")
        for index, entry in enumerate(content[section]):
            for key, kind in keys.items():
                value = entry.get(key) if isinstance(entry, dict) else None
                if not isinstance(value, kind) or isinstance(value, bool):
                    raise DetectionsError(f"{name}: {section}[{index}] lacks a valid {key!r}; {EXPECTED_ANNOTATIONS}")
            if section == "annotations" and not _is_four_numbers(entry["bbox"]):
                raise DetectionsError(f"{name}: {section}[{index}] has bbox {_shown(entry['bbox'])}; {EXPECTED_BOX}")
            if section == "annotations" and entry.get("iscrowd") not in (None, 0, 1):
                raise DetectionsError(
                    f"{name}: {section}[{index}] has iscrowd {_shown(entry['iscrowd'])}; expected 0 or 1"
                )
    for section, key in (("images", "id"), ("categories", "id"), ("categories", "name")):
        for value, count in Counter(entry[key] for entry in content[section]).items():
            if count > 1:
                raise DetectionsError(f"{name}: {count} {section} have {key} {value!r}; give each its own")


def _shown(value: object) -> str:
    """Cut short, and on one line, which a matrix of NumPy's is not."""
    return " ".join(reprlib.repr(value).split())


def _is_number(value: object) -> bool:
    """Whether it is a finite float64, or an integer within its range."""
    if isinstance(value, np.floating):
        value = float(value)  # in a smaller type the limit below would be infinite
    return isinstance(value, NUMBERS) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _is_four_numbers(bbox: object) -> bool:
    if not isinstance(bbox, BOXES) or getattr(bbox, "ndim", 1) != 1 or len(bbox) != 4:
        return False
    return all(isinstance(value, NUMBERS) and not isinstance(value, bool) for value in bbox)


def _read_json(path: str | Path) -> Any:
    try:
        content = Path(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        reason = getattr(error, "strerror", None) or error
        raise DetectionsError(f"{path}: cannot be read ({reason}); check the path") from error
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
