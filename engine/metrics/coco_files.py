"""Annotations and results in COCO's format, from files or in memory, checked and as arrays."""

import gc
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .coco_annotations import check_annotations, ground_truth
from .coco_values import BOXES, EXPECTED_BOX, NUMBERS, id_problem, is_four_numbers, is_number, shown
from .errors import DetectionsError
from .file_names import INTEGERS, with_image_ids
from .instances import Detections, GroundTruth

if TYPE_CHECKING:
    from pycocotools.coco import COCO

RESULT_KEYS = ("image_id", "category_id", "bbox", "score")
EXPECTED_RESULTS = 'expected a list of {"image_id", "category_id", "bbox": [x, y, width, height], "score"}'


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
    check_annotations(content, truth_name)
    names = {category["id"]: category["name"] for category in content["categories"]}
    image_of = _position_of([image["id"] for image in content["images"]], image_ids, "image", truth_name)
    label_of = _position_of(list(names), category_ids, "category", truth_name)
    truth = ground_truth(content["annotations"], image_of, label_of, names, truth_name)
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
    check_annotations(content, str(path))
    return content


def _position_of(ids: list[int], wanted: Sequence[int] | None, kind: str, name: str) -> dict[int, int]:
    """Of each id of a file its position among those to evaluate, in ascending order; -1 if it is not one of them."""
    known, chosen = {*ids}, ids if wanted is None else list(wanted)
    for key in chosen:
        if key not in known:
            some = ", ".join(map(str, ids[:5])) + (", …" if len(ids) > 5 else "")
            raise DetectionsError(f"{name}: no {kind} has id {shown(key)}, which is to be evaluated; ids are {some}")
    evaluated = sorted({*chosen})
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
    if not is_four_numbers(bbox) or not all(map(is_number, bbox)) or min(bbox[2:]) < 0:
        return f"has bbox {shown(bbox)}; {EXPECTED_BOX}"
    if not is_number(detection["score"]):
        return f"has score {shown(detection['score'])}; expected a finite number"
    for key, known in (("image_id", image_of), ("category_id", label_of)):
        if problem := id_problem(detection, key):
            return problem
        if detection[key] not in known:
            return f"has {key} {shown(detection[key])}, unknown in {truth_name}; use the ids of that file"
    return None


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
