"""What a split holds before anything is trained on it: its problems, its statistics, and what metrics will lack."""

import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data import CocoDetection, ImageError, padded_size, read_image
from data.annotations import read_document
from data.boxes import scale_boxes
from data.validation import box_fault, record_problems
from detector import ModelConfig, build_references
from detector.matcher import NEGATIVE
from engine.metrics.lrp import AREA_RANGES
from engine.run.progress import progress

EXAMPLES = 3  # of each kind of problem


@dataclass
class SplitReport:
    """Findings about one split.

    Attributes:
        problems: kind -> messages, in the order found; what training or evaluation cannot use or will change.
        num_images, num_empty: images, and those of them without objects.
        classes: names in label order, with the columns `objects`, `crowd`, `images`, and of the anchors (objects
            alone, at the size that training resizes to) `positives`, the mean number per object, and `unmatched`,
            the share of objects that no anchor is positive for.
        sides: (n,) square roots of the objects' areas in pixels of the files; resized_sides: as training sees them.
        undefined: metrics that will be -1, with the reason.
    """

    problems: dict[str, list[str]]
    num_images: int
    num_empty: int
    classes: dict[str, dict[str, float]]
    sides: np.ndarray
    resized_sides: np.ndarray
    undefined: dict[str, str] = field(default_factory=dict)


def check_split(dataset: CocoDetection, model: ModelConfig, size: tuple[int, int], read_images: bool) -> SplitReport:
    """Looks at every entry of the annotation file and, with `read_images`, at every image file.

    Args:
        dataset: made with on_error="skip", so that statistics are of what can be used.
        model: of its anchors and matcher.
        size: (height, width) that training resizes to.
    """
    document = read_document(dataset.annotation_file, images_only=not dataset.has_annotations)
    problems = _annotation_problems(document)
    if read_images:
        for kind, messages in _image_problems(dataset).items():
            problems[kind] += messages
    targets = [dataset.objects(index) for index in range(len(dataset))]
    boxes = torch.cat([target["boxes"][~target["crowd"]] for target in targets])
    resized = [
        {**target, "boxes": scale_boxes(target["boxes"], tuple(map(int, own)), size)}
        for target, own in zip(targets, dataset.sizes, strict=True)
    ]
    resized_boxes = torch.cat([target["boxes"][~target["crowd"]] for target in resized])
    return SplitReport(
        problems=dict(problems),
        num_images=len(dataset),
        num_empty=sum(len(target["boxes"]) == 0 for target in targets),
        classes=_class_table(dataset.class_names, resized, model, size),
        sides=_sides(boxes),
        resized_sides=_sides(resized_boxes),
        undefined=_undefined_metrics(dataset) if dataset.has_annotations else {"all": "there are no annotations"},
    )


def _annotation_problems(document: dict[str, Any]) -> defaultdict[str, list[str]]:
    problems: defaultdict[str, list[str]] = defaultdict(list)
    unusable: dict[str, set[int]] = defaultdict(set)
    for problem in record_problems(document):
        problems[problem.kind].append(problem.message)
        unusable[problem.section].add(problem.position)
    sizes = {
        record["id"]: (record["height"], record["width"])
        for position, record in enumerate(document["images"])
        if position not in unusable["images"]
    }
    seen: Counter = Counter()
    for position, record in enumerate(document["annotations"]):
        if position in unusable["annotations"]:
            continue
        where = f"annotations[{position}] (id {record.get('id')})"
        if (fault := box_fault(record["bbox"], *sizes[record["image_id"]])) is not None:
            problems[f"annotations: {fault}"].append(f"{where}: {record['bbox']} in image {record['image_id']}")
        seen[repr(record.get("id"))] += 1
        if seen[repr(record.get("id"))] == 2:
            problems["annotations: id occurs more than once"].append(f"{where}: id occurs more than once")
    names = Counter(record["file_name"] for i, record in enumerate(document["images"]) if i not in unusable["images"])
    for name, count in names.items():
        if count > 1:
            problems["images: file_name occurs more than once"].append(f"{name!r}: {count} images name this file")
    return problems


def _image_problems(dataset: CocoDetection) -> dict[str, list[str]]:
    problems: dict[str, list[str]] = defaultdict(list)

    def look(index: int) -> ImageError | None:
        try:
            read_image(dataset.path(index), tuple(dataset.sizes[index].tolist()))
        except ImageError as error:
            return error
        return None

    with ThreadPoolExecutor(os.cpu_count()) as pool, progress(total=len(dataset), desc="images", unit="image") as bar:
        for index, error in enumerate(pool.map(look, range(len(dataset)))):
            if error is not None:
                problems[f"image files: {error.kind}"].append(f"{error} (image id {dataset.image_ids[index]})")
            bar.update()
    return problems


def _class_table(
    names: Sequence[str], targets: Sequence[dict[str, Tensor]], model: ModelConfig, size: tuple[int, int]
) -> dict[str, dict[str, float]]:
    references = build_references(model)
    boxes_per_level = [] if references is None else references.boxes(padded_size(size))
    count = len(names)
    table = {key: torch.zeros(count) for key in ("objects", "crowd", "images", "positives", "unmatched")}
    for target in targets:
        crowd = target["crowd"]
        boxes, labels = target["boxes"][~crowd], target["labels"][~crowd]
        table["objects"] += labels.bincount(minlength=count)
        table["crowd"] += target["labels"][crowd].bincount(minlength=count)
        table["images"][target["labels"].unique()] += 1
        if len(boxes) == 0 or references is None:
            continue
        matches = references.match(boxes_per_level, boxes)
        positives = matches[matches > NEGATIVE].bincount(minlength=len(boxes))
        table["positives"] += labels.bincount(positives.float(), minlength=count)
        table["unmatched"] += labels.bincount((positives == 0).float(), minlength=count)
    for key in ("positives", "unmatched"):
        table[key] /= table["objects"].clamp(min=1)
    return {name: {key: float(values[i]) for key, values in table.items()} for i, name in enumerate(names)}


def _sides(boxes: Tensor) -> np.ndarray:
    return (boxes[:, 2:] - boxes[:, :2]).prod(dim=1).sqrt().numpy()


def _undefined_metrics(dataset: CocoDetection) -> dict[str, str]:
    """COCO metrics without any ground truth to be computed from; COCO ignores crowd regions and measures `area`."""
    content = dataset.ground_truth
    classes = set(dataset.category_ids)
    areas, present = [], set()
    for record in content["annotations"]:
        if record["category_id"] in classes and not record.get("iscrowd"):
            area = record.get("area")
            areas.append(area if isinstance(area, int | float) else record["bbox"][2] * record["bbox"][3])
            present.add(record["category_id"])
    if not areas:
        return {"all": "there is no object"}
    undefined = {}
    for label, (low, high) in AREA_RANGES.items():
        if not any(low <= area <= high for area in areas):
            limits = f"of at least {low:g}" if high == float("inf") else f"from {low:g} to {high:g}"
            undefined[f"AP{label[0]}, AR{label[0]}, oLRP_{label[0]}"] = f"there is no object {limits} square pixels"
    for category, name in zip(dataset.category_ids, dataset.class_names, strict=True):
        if category not in present:
            undefined[f"AP and oLRP of {name!r}"] = "there is no object of this class"
    return undefined
