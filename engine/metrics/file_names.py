"""Images of a results file found in an annotation file by the names of their files."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from .errors import DetectionsError

INTEGERS = (int, np.integer)  # types of ids: those of results in memory may be NumPy's


class ImagesByName:
    """The images of an annotation file by their `file_name`.

    Names are compared from their end, part by part, and the last part is the same at least. Images whose whole
    `file_name` ends the name come first, then those that have more parts in common with it: `x/val/a.jpg` is
    `val/a.jpg` rather than `a.jpg`, and that rather than `train/a.jpg`.

    Args:
        images: records of the annotation file; those without a `file_name` cannot be found.
    """

    def __init__(self, images: Iterable[Mapping[str, Any]]) -> None:
        self._by_last: dict[str, list[tuple[list[str], int]]] = defaultdict(list)
        self._by_name: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for image in images:
            if isinstance(image.get("file_name"), str) and (parts := _parts(image["file_name"])):
                self._by_last[parts[0]].append((parts, image["id"]))
                self._by_name[tuple(parts)].append(image["id"])

    def __bool__(self) -> bool:
        return bool(self._by_last)

    def find(self, file_name: str) -> list[int]:
        """Ids of the images that the name may mean: one, none, or several that fit equally well."""
        parts = _parts(file_name)
        for count in range(len(parts), 0, -1):  # videos' images have but a few last parts among them
            if whole := self._by_name.get(tuple(parts[:count])):
                return whole
        named = self._by_last.get(parts[0], []) if parts else []
        shared = [_num_shared(parts, other) for other, _ in named]
        fits = [(count == len(other), count) for count, (other, _) in zip(shared, named, strict=True)]
        best = max(fits, default=None)
        return [image_id for fit, (_, image_id) in zip(fits, named, strict=True) if fit == best]


def _parts(name: str) -> list[str]:
    """The parts of a path, last first; either slash, as data sets come from everywhere."""
    return [part for part in reversed(name.replace("\\", "/").split("/")) if part not in ("", ".")]


def _num_shared(parts: list[str], others: list[str]) -> int:
    differ = (i for i, (own, other) in enumerate(zip(parts, others, strict=False)) if own != other)
    return next(differ, min(len(parts), len(others)))


def with_image_ids(results: Sequence[Any], document: Mapping[str, Any], truth: str, name: str) -> Sequence[Any]:
    """Results whose images and categories are those that they name: an `image_id` is put where only a `file_name` is.

    What is no record, or has no names, stays as it is.

    Args:
        document: content of the annotation file; truth, name: of the annotations and the results, for errors.
    Raises:
        DetectionsError: a name and an id contradict each other, or a name means no image, or several.
    """
    if not any(isinstance(row, dict) and ("file_name" in row or "category_name" in row) for row in results):
        return results
    images = ImagesByName(document["images"])
    categories = {category["id"]: category["name"] for category in document["categories"]}
    meant: dict[str, list[int]] = {}  # by file name
    name_of: dict[int, str] = {}  # of images whose ids were found
    resolved = []
    for index, row in enumerate(results):
        problem, image_id = None, None
        if isinstance(row, dict):
            problem = _category_problem(row, categories, truth)
            file_name = row.get("file_name")
            if isinstance(file_name, str) and (images or row.get("image_id") is None):
                ids = meant[file_name] if file_name in meant else meant.setdefault(file_name, images.find(file_name))
                problem = problem or _image_problem(row, ids, truth)
                if problem is None and row.get("image_id") is None:
                    image_id = ids[0]
                    if name_of.setdefault(image_id, file_name) != file_name:
                        problem = f"is of {file_name!r}, earlier ones of {name_of[image_id]!r}, and both are image "
                        problem += f"{image_id} of {truth}; give image_id"
        if problem is not None:
            raise DetectionsError(f"{name}: detection {index} {problem}")
        resolved.append(row if image_id is None else {**row, "image_id": image_id})
    return resolved


def _image_problem(row: Mapping[str, Any], ids: Sequence[int], truth: str) -> str | None:
    """What is wrong with the file name of a result, which means the images of these ids."""
    file_name = row["file_name"]
    if "frame" in row:
        return f"is of frame {row['frame']} of {file_name!r}, and annotations are of images; leave it out"
    if not ids:
        return f"has file_name {file_name!r}, which no image of {truth} has; correct it, or give image_id alone"
    if row.get("image_id") is not None:
        if row["image_id"] in ids:
            return None
        return (
            f"has image_id {row['image_id']} and file_name {file_name!r}, which is image {ids[0]} of {truth}; correct "
            "one of them, or leave out the wrong one"
        )
    if len(ids) > 1:
        return f"has file_name {file_name!r}, which may be any of the images {ids[:5]} of {truth}; give image_id"
    return None


def _category_problem(row: Mapping[str, Any], categories: Mapping[Any, str], truth: str) -> str | None:
    name, category_id = row.get("category_name"), row.get("category_id")
    if not isinstance(name, str) or not isinstance(category_id, INTEGERS) or category_id not in categories:
        return None
    known = categories[category_id]
    if name == known:
        return None
    return (
        f"has category_id {category_id} and category_name {name!r}, but that category of {truth} is {known!r}; correct "
        "one of them, or leave out category_name"
    )
