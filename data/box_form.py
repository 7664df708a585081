"""Boxes of a COCO file that are in another form than COCO's: fractions of the image, or corners."""

from pathlib import Path
from typing import Any

import numpy as np

from data.boxes import FRACTION_TOLERANCE, to_xyxy
from data.errors import DatasetError

BORDER_TOLERANCE = 1.0  # pixels that a box may reach out of its image by: rounding

# What corners are told by. Read as x, y, width, height they reach out of the image where their centre lies right of the
# image's or below it: three quarters of boxes that are spread evenly. A third of that is reached where objects crowd in
# the upper left, too, and not by files in COCO's form, whose boxes tools cut at the border.
FEWEST_CORNERS, LEAST_SHARE = 5, 0.25


def refuse_other_forms(xywh: np.ndarray, sizes: np.ndarray, path: Path) -> None:
    """Raises DatasetError where the boxes of a file are no x, y, width, height in pixels.

    Args:
        xywh: (n, 4) float64, as the file has them.
        sizes: (n, 2) height and width of the image of each.
        path: names the file in messages.
    """
    known = np.isfinite(xywh).all(axis=1)
    _refuse_fractions(xywh[known], path)
    _refuse_corners(xywh[known], sizes[known], path)


def refuse_other_forms_of(document: dict[str, Any], path: Path) -> None:
    """`refuse_other_forms` of a document that has usable entries alone."""
    sizes = {record["id"]: (record["height"], record["width"]) for record in document["images"]}
    objects = document["annotations"]
    xywh = np.array([record["bbox"] for record in objects], dtype=np.float64).reshape(-1, 4)
    refuse_other_forms(xywh, np.array([sizes[record["image_id"]] for record in objects]).reshape(-1, 2), path)


def corners_of(xywh: np.ndarray) -> np.ndarray:
    """(n, 4) xyxy of boxes as a file has them, of which some may be not finite."""
    with np.errstate(invalid="ignore", over="ignore"):
        return np.stack(to_xyxy(*xywh.T), axis=1)


def reaches_out(corners: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(n,) bool: xyxy boxes over the border of their image, of `sizes` (height, width), by more than rounding."""
    beyond = (corners[:, 2:] > sizes[:, ::-1] + BORDER_TOLERANCE).any(axis=1)
    before = (corners[:, :2] < -BORDER_TOLERANCE).any(axis=1)
    return np.logical_or(beyond, before)


def _refuse_fractions(boxes: np.ndarray, path: Path) -> None:
    inside = (boxes >= -FRACTION_TOLERANCE) & (boxes <= 1 + FRACTION_TOLERANCE)
    if inside.all() and (boxes % 1 > 0).any():
        raise DatasetError(
            f"{path}: no box is larger than a pixel, and all lie in 0..1: fractions of the image's sides, where COCO "
            "has pixels; multiply x and width by the image's width, y and height by its height"
        )


def _refuse_corners(boxes: np.ndarray, sizes: np.ndarray, path: Path) -> None:
    if len(boxes) < FEWEST_CORNERS or not (boxes[:, 2:] > boxes[:, :2]).all() or reaches_out(boxes, sizes).any():
        return
    count = int(reaches_out(corners_of(boxes), sizes).sum())
    if count >= LEAST_SHARE * len(boxes):
        raise DatasetError(
            f"{path}: the boxes look like corners x1, y1, x2, y2: as x, y, width, height {count} of {len(boxes)} reach "
            "out of their images, as corners none; COCO has x, y, width, height: convert them (width = x2 - x1, height "
            "= y2 - y1)"
        )
