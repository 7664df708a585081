"""The JSON document of a COCO annotation file, and its entries that can be used."""

import logging
from pathlib import Path
from typing import Any, Literal

from data.errors import DatasetError
from data.text_files import read_json
from data.validation import Problem, record_problems, shared_image_id

logger = logging.getLogger(__name__)


def read_document(path: Path, images_only: bool = False) -> dict[str, Any]:
    """The lists "images", "categories" and "annotations" of a COCO file, their entries unchecked; without annotations
    where `images_only`. Raises DatasetError."""
    document = read_json(path)
    require_lists(document, path, images_only)
    return document


def require_lists(document: Any, path: Path, images_only: bool = False) -> None:
    """Raises DatasetError where the content of a JSON file is no document as of `read_document`."""
    if not isinstance(document, dict):
        raise DatasetError(f"{path}: not a COCO annotation file: its top level is not an object")
    if images_only:
        document["annotations"] = []
    for section in ("images", "annotations", "categories"):
        if not isinstance(document.get(section), list):
            raise DatasetError(f"{path}: not a COCO annotation file: it has no list {section!r}")
        if not document[section] and section != "annotations":
            raise DatasetError(f"{path}: {section!r} is empty")


def usable_document(
    path: Path, images_only: bool = False, on_error: Literal["stop", "skip"] = "stop", warn: bool = True
) -> dict[str, Any]:
    """`read_document` with nothing but usable entries; `on_error` and errors as of `read_annotations`, warnings only
    if `warn`."""
    document = read_document(path, images_only)
    keep_usable(document, path, on_error, warn)
    return document


def keep_usable(
    document: dict[str, Any], path: Path, on_error: Literal["stop", "skip"] = "stop", warn: bool = True
) -> None:
    """Leaves out of a document of `read_document` what cannot be used; as `usable_document`.

    Args:
        path: names the file in messages.
    """
    if (fault := shared_image_id(document)) is not None:
        raise DatasetError(f"{path}: {fault}")
    unusable: dict[str, list[Problem]] = {}  # by kind
    for problem in record_problems(document):
        if problem.section == "categories":
            raise DatasetError(f"{path}: {problem.message}")
        if on_error == "stop":
            raise DatasetError(f"{path}: {problem.message}; mend it, or leave such entries out: data.on_error=skip")
        unusable.setdefault(problem.kind, []).append(problem)
    for kind, problems in unusable.items() if warn else ():
        logger.warning("%s: left out %d of %s (the first: %s)", path, len(problems), kind, problems[0].message)
    for section in ("images", "annotations"):
        positions = {p.position for problems in unusable.values() for p in problems if p.section == section}
        document[section] = [record for i, record in enumerate(document[section]) if i not in positions]
    if not document["images"]:
        reasons = "; ".join(f"{len(found)} × {found[0].message}" for found in unusable.values())
        raise DatasetError(f"{path}: not one entry of 'images' can be used ({reasons})")
