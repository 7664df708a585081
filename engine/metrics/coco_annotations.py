"""Annotations in COCO's format, checked and as arrays."""

import functools
import logging
from collections import Counter
from typing import Any

import numpy as np

from .coco_values import EXPECTED_BOX, id_problem, is_four_numbers, is_number, shown
from .errors import DetectionsError
from .instances import GroundTruth, box_areas
from .matching import MAX_DETECTIONS

EXPECTED_ANNOTATIONS = "expected COCO format with images, categories and annotations"
UNLISTED = -2  # position of an image or category that the file has not
REQUIRED: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {  # of COCO annotations: keys that are ids, and others
    "images": (("id",), ()),
    "categories": (("id",), ("name",)),
    "annotations": (("image_id", "category_id"), ("bbox",)),
}

logger = logging.getLogger(__name__)


def check_annotations(content: Any, name: str) -> None:
    """Raises DetectionsError that names the first entry of the file of this name that cannot be used."""
    for section, (ids, others) in REQUIRED.items():
        if not isinstance(content, dict) or not isinstance(content.get(section), list):
            raise DetectionsError(f"{name}: has no list {section!r}; {EXPECTED_ANNOTATIONS}")
        for index, entry in enumerate(content[section]):
            if problem := _problem(entry, ids, others):
                raise DetectionsError(f"{name}: {section}[{index}] {problem}")
    for section, key in (("images", "id"), ("categories", "id"), ("categories", "name")):
        for value, count in Counter(entry[key] for entry in content[section]).items():
            if count > 1:
                raise DetectionsError(f"{name}: {count} {section} have {key} {value!r}; give each its own")


def _problem(entry: Any, ids: tuple[str, ...], others: tuple[str, ...]) -> str | None:
    if not isinstance(entry, dict):
        return f"is not an object; {EXPECTED_ANNOTATIONS}"
    for key in (*ids, *others):
        if key not in entry:
            return f"has no {key!r}; {EXPECTED_ANNOTATIONS}"
    for key in ids:
        if problem := id_problem(entry, key):
            return problem
    if "name" in others and not isinstance(entry["name"], str):
        return f"has name {shown(entry['name'])}; expected a string"
    if "bbox" in others and not is_four_numbers(entry["bbox"]):
        return f"has bbox {shown(entry['bbox'])}; {EXPECTED_BOX}"
    if "bbox" in others and entry.get("iscrowd") not in (None, 0, 1):
        return f"has iscrowd {shown(entry['iscrowd'])}; expected 0 or 1"
    return None


def ground_truth(
    annotations: list[dict], image_of: dict[int, int], label_of: dict[int, int], names: dict[int, str], name: str
) -> GroundTruth:
    """Objects as arrays; those of images or categories that are not evaluated or not in the file are left out.

    Args:
        annotations: checked.
        image_of, label_of: of each id of the file its position among those to evaluate, -1 for one that is not.
        names: of each category id; name: of the file, for warnings.
    """
    places = [place for place, entry in enumerate(annotations) if all(map(is_number, entry["bbox"]))]
    if len(places) < len(annotations):
        _warn_once(f"{name}: left out {len(annotations) - len(places)} annotations whose bbox is not finite")
    usable = [annotations[place] for place in places]
    images = np.array([image_of.get(entry["image_id"], UNLISTED) for entry in usable], dtype=np.int64)
    labels = np.array([label_of.get(entry["category_id"], UNLISTED) for entry in usable], dtype=np.int64)
    for ids, key, section in ((images, "image_id", "images"), (labels, "category_id", "categories")):
        if len(unlisted := np.flatnonzero(ids == UNLISTED)):
            place = places[unlisted[0]]
            _warn_once(
                f"{name}: left out {len(unlisted)} annotations whose {key} is not among the {section} (the first: "
                f"annotations[{place}], of {key} {shown(annotations[place][key])})"
            )
    boxes = np.array([entry["bbox"] for entry in usable], dtype=np.float64).reshape(-1, 4)
    if len(inverted := np.flatnonzero((boxes[:, 2:] < 0).any(axis=1))):
        _warn_once(
            f"{name}: {len(inverted)} annotations have a bbox with a negative side, which no detection can match (the "
            f"first: annotations[{places[inverted[0]]}])"
        )
    crowd = np.array([bool(entry.get("iscrowd")) for entry in usable], dtype=bool)
    given = [entry.get("area") for entry in usable]
    areas = np.array([area if is_number(area) else np.nan for area in given], dtype=np.float64)
    if (areas < 0).any():  # -1 for unknown, in some files
        _warn_once(f"{name}: {(areas < 0).sum()} annotations have a negative area; that of the box is taken")
    areas = np.where(areas >= 0, areas, box_areas(boxes))
    kept = (images >= 0) & (labels >= 0)
    image_ids, category_ids = ([key for key in sorted(ids) if ids[key] >= 0] for ids in (image_of, label_of))
    class_names = [names[category_id] for category_id in category_ids]
    truth = GroundTruth(
        image_ids, category_ids, class_names, images[kept], labels[kept], boxes[kept], areas[kept], crowd[kept]
    )
    _warn_of_crowded_images(truth, name)
    return truth


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
