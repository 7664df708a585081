"""COCO annotation files as flat arrays."""

import difflib
import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from data.box_form import corners_of, reaches_out, refuse_other_forms
from data.coco_document import usable_document
from data.errors import DatasetError
from data.validation import repeated_objects

OBJECT_KEYS = ("boxes", "labels", "crowd")  # of a target: the tensors with a row per object

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Annotations:
    """A whole split without a Python object per image or annotation.

    Loader processes share their parent's memory until they write to it, and already reading a Python object writes
    its reference count: lists of dicts would end up copied into every worker.

    Attributes:
        class_names, category_ids: by label, in ascending order of category id.
        image_ids: (N,) int64, in the order of the file.
        sizes: (N, 2) int64, (height, width) in pixels.
        file_names: UTF-8, one after the other; name i is file_names[name_offsets[i]:name_offsets[i + 1]].
        boxes: (M, 4) float32, xyxy pixels, inside the image and of positive area, grouped by image.
        labels: (M,) int64, 0..K-1.
        crowd: (M,) bool.
        box_offsets: (N + 1,) int64; the boxes of image i are rows box_offsets[i]:box_offsets[i + 1].
    """

    class_names: list[str]
    category_ids: list[int]
    image_ids: np.ndarray
    sizes: np.ndarray
    file_names: bytes
    name_offsets: np.ndarray
    boxes: Tensor
    labels: Tensor
    crowd: Tensor
    box_offsets: np.ndarray

    def file_name(self, index: int) -> str:
        start, stop = self.name_offsets[index : index + 2]
        return self.file_names[start:stop].decode("utf-8", "surrogatepass")

    def objects(self, index: int) -> dict[str, Tensor]:
        """`boxes`, `labels` and `crowd` of one image, as copies."""
        start, stop = self.box_offsets[index : index + 2]
        return {name: getattr(self, name)[start:stop].clone() for name in OBJECT_KEYS}

    def images_with_objects(self) -> list[int]:
        """Indices of the images with an object that is no crowd region, ascending."""
        owners = np.repeat(np.arange(len(self.image_ids)), np.diff(self.box_offsets))
        return np.unique(owners[~self.crowd.numpy()]).tolist()

    def subset(self, indices: Sequence[int]) -> "Annotations":
        """Those of some of the images, in the order given."""
        names = [self.file_names[self.name_offsets[i] : self.name_offsets[i + 1]] for i in indices]
        rows = [np.arange(self.box_offsets[i], self.box_offsets[i + 1]) for i in indices]
        chosen = torch.from_numpy(np.concatenate(rows))
        return replace(
            self,
            image_ids=self.image_ids[indices],
            sizes=self.sizes[indices],
            file_names=b"".join(names),
            name_offsets=np.cumsum([0, *map(len, names)]),
            box_offsets=np.cumsum([0, *map(len, rows)]),
            **{name: getattr(self, name)[chosen] for name in OBJECT_KEYS},
        )

    def digest(self) -> str:
        """SHA-256 of the image ids in their order and of all objects, in hexadecimal."""
        arrays = (self.image_ids, self.box_offsets, *(getattr(self, name).numpy() for name in OBJECT_KEYS))
        return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def read_annotations(
    path: Path,
    classes: Sequence[str] | None = None,
    images_only: bool = False,
    on_error: Literal["stop", "skip"] = "stop",
) -> Annotations:
    """Reads and checks a COCO annotation file.

    Boxes are clipped to their image, and one warning counts those that are cut by more than rounding. Those without
    area there, or not finite, are dropped; one warning counts them.

    Args:
        path: the JSON file.
        classes: names of the categories to use; None uses all. Objects of the others are left out, images stay.
        images_only: an `image_info` file, of which only images and categories are read.
        on_error: what an image or annotation that cannot be used does: "stop" raises, "skip" leaves it out, and one
            warning per kind of problem counts them.
    Raises:
        DatasetError: not JSON, not COCO, an unknown class name, categories that cannot be used, no image left, boxes
            in fractions of the image or as corners; with "stop" also entries that are malformed or contradict each
            other.
    """
    document = usable_document(path, images_only, on_error)
    images, objects = document["images"], document["annotations"]
    image_ids = np.array([record["id"] for record in images], dtype=np.int64)
    sizes = np.array([(record["height"], record["width"]) for record in images], dtype=np.int64)
    names = [record["file_name"].encode("utf-8", "surrogatepass") for record in images]

    all_ids = np.array([record["id"] for record in document["categories"]], dtype=np.int64)
    all_names = [record["name"] for record in document["categories"]]
    category_ids, class_names = _select_classes(all_ids, all_names, classes, path)

    owners = _look_up([record["image_id"] for record in objects], image_ids)
    object_ids = [record["category_id"] for record in objects]
    labels = _look_up(object_ids, np.array(category_ids))
    xywh = np.array([record["bbox"] for record in objects], dtype=np.float64).reshape(-1, 4)
    crowd = np.array([bool(record.get("iscrowd", 0)) for record in objects], dtype=bool)

    refuse_other_forms(xywh, sizes[owners], path)
    ids = [record.get("id") for record in objects]
    _warn_of("objects that repeat another of the same image, class and box", repeated_objects(objects), ids, path)
    corners = corners_of(xywh)
    boxes = corners.clip(0, np.tile(sizes[owners, ::-1], 2)).astype(np.float32)
    has_area = (boxes[:, 2:] > boxes[:, :2]).all(axis=1) & np.isfinite(xywh).all(axis=1)
    dropped, kept = (labels >= 0) & ~has_area, (labels >= 0) & has_area
    _warn_of("boxes without area inside their image, dropped", np.flatnonzero(dropped), ids, path)
    cut = kept & reaches_out(corners, sizes[owners])
    _warn_of("boxes that reach out of their image, cut at its border", np.flatnonzero(cut), ids, path)
    rows = np.flatnonzero(kept)
    rows = rows[np.argsort(owners[rows], kind="stable")]
    return Annotations(
        class_names=class_names,
        category_ids=category_ids,
        image_ids=image_ids,
        sizes=sizes,
        file_names=b"".join(names),
        name_offsets=np.cumsum([0, *map(len, names)]),
        boxes=torch.from_numpy(boxes[rows]),
        labels=torch.from_numpy(labels[rows]),
        crowd=torch.from_numpy(crowd[rows]),
        box_offsets=np.searchsorted(owners[rows], np.arange(len(image_ids) + 1)),
    )


def _select_classes(
    ids: np.ndarray, names: list[str], classes: Sequence[str] | None, path: Path
) -> tuple[list[int], list[str]]:
    """Ids, ascending, and names of the categories to use."""
    if classes is not None and not classes:
        raise DatasetError("data.classes is empty: list category names, or set it to null for all")
    for name in classes or ():
        if name not in names:
            nearest = difflib.get_close_matches(name, names, n=1, cutoff=0)[0]
            raise DatasetError(f"{path}: no category {name!r} (data.classes); the nearest is {nearest!r}")
    chosen = [(int(ids[i]), names[i]) for i in np.argsort(ids) if classes is None or names[i] in classes]
    return [i for i, _ in chosen], [name for _, name in chosen]


def _look_up(ids: list[int], table: np.ndarray) -> np.ndarray:
    """(n,) int64: where in the table of unique ids each id is; -1 where it is not there."""
    values, order = np.array(ids, dtype=np.int64), np.argsort(table)
    found = order[np.searchsorted(table, values, sorter=order).clip(max=len(table) - 1)]
    return np.where(table[found] == values, found, -1)


def _warn_of(what: str, positions: Sequence[int] | np.ndarray, ids: list, path: Path) -> None:
    """A line about some of the annotations, which have these ids, unless there are none."""
    if len(positions):
        shown = ", ".join(str(ids[i]) for i in positions[:5]) + (", …" if len(positions) > 5 else "")
        logger.warning("%s: " + what + ": %d (annotation %s)", path, len(positions), shown)
