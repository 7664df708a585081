"""The two sides of an evaluation, as arrays: the objects and the detections of a data set."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class GroundTruth:
    """G objects in I images of K classes.

    Attributes:
        image_ids: I ids, ascending; an image is named by its position here.
        category_ids: K ids, ascending; a class is named by its position here, its label.
        class_names: K names.
        images: (G,) int64, image of each object.
        labels: (G,) int64, its class.
        boxes: (G, 4) float64: x, y, width, height in pixels.
        areas: (G,) float64, square pixels, by which the object is small, medium or large.
        crowd: (G,) bool, regions in which detections neither count nor fail.
    """

    image_ids: list[int]
    category_ids: list[int]
    class_names: list[str]
    images: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray


@dataclass(frozen=True)
class Detections:
    """D detections in the images and of the classes of a `GroundTruth`.

    Attributes:
        images, labels: (D,) int64, as those of the objects.
        boxes: (D, 4) float64: x, y, width, height in pixels.
        scores: (D,) float64.
    """

    images: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray


def box_areas(boxes: np.ndarray) -> np.ndarray:
    """(n,) of (n, 4) x, y, width, height; infinite beyond the range of float64."""
    with np.errstate(over="ignore"):
        return boxes[:, 2] * boxes[:, 3]


def paired_iou(boxes: np.ndarray, objects: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """IoU of n detections, each with one object, in pycocotools' arithmetic; with a crowd region: the share of the
    detection that lies in it.

    Args:
        boxes, objects: (n, 4) x, y, width, height.
        crowd: (n,) bool, of the objects.
    Returns:
        (n,) in 0..1; NaN where an area exceeds the range of float64.
    """
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        ends = np.minimum(boxes[:, :2] + boxes[:, 2:], objects[:, :2] + objects[:, 2:])
        width, height = (ends - np.maximum(boxes[:, :2], objects[:, :2])).T
        intersection = width * height
        area = box_areas(boxes)
        union = np.where(crowd, area, area + box_areas(objects) - intersection)
        return np.where((width > 0) & (height > 0), intersection / union, 0.0)
