"""Test-time augmentation: every image seen at several sizes and mirrored, its detections merged by NMS."""

import copy
from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor

from data import CocoDetection, eval_transform
from data.boxes import to_xyxy
from detector.nms import batched_nms
from engine.run.groups import EvaluationConfig

NMS_THRESH = 0.5  # IoU above which the worse of two detections goes, where the detector has no key for it


class View(NamedTuple):
    """One way to look at a data set: its images through one transform, mirrored left to right or not."""

    dataset: CocoDetection
    flip: bool


def views(dataset: CocoDetection, evaluation: EvaluationConfig) -> list[View]:
    """The data set as it is first, then what evaluation.flip and evaluation.extra_short_sides add."""
    datasets = [dataset]
    for short_side in evaluation.extra_short_sides:
        assert evaluation.short_side is not None and evaluation.long_side is not None  # as the config was checked
        resized = copy.copy(dataset)
        long_side = round(evaluation.long_side * short_side / evaluation.short_side)
        resized.transform = eval_transform(short_side, long_side, as_torchvision=evaluation.resize == "torchvision")
        datasets.append(resized)
    return [View(each, flip) for each in datasets for flip in ([False, True] if evaluation.flip else [False])]


def mirror_images(images: Tensor, sizes: Sequence[tuple[int, int]]) -> Tensor:
    """(B, 3, H, W) with the part of each image that is not padding, (height, width), mirrored left to right."""
    mirrored = images.clone()
    for image, (height, width) in zip(mirrored, sizes, strict=True):
        image[:, :height, :width] = image[:, :height, :width].flip(-1)
    return mirrored


def merge(results: Sequence[dict[str, Any]], nms_thresh: float, detections_per_img: int) -> list[dict[str, Any]]:
    """COCO results of several views, sorted by image, to those that NMS per class leaves, best first in each image."""
    merged = []
    for _, group in groupby(results, key=lambda result: result["image_id"]):
        found = list(group)
        boxes = torch.stack(to_xyxy(*torch.tensor([result["bbox"] for result in found]).T), dim=1)
        scores = torch.tensor([result["score"] for result in found])
        ids = [result["category_id"] for result in found]
        label_of = {category_id: label for label, category_id in enumerate(sorted(set(ids)))}
        labels = torch.tensor([label_of[each] for each in ids])  # ids may be of any size, and NMS multiplies labels
        kept = batched_nms(boxes, scores, labels, nms_thresh)[:detections_per_img]
        merged += [found[index] for index in kept.tolist()]
    return merged
