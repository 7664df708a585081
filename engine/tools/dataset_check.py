"""A check of a split before anything is trained on it: its problems, its statistics, and the metrics it will lack."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data import CocoDetection, DatasetError, TrainBatchSampler, padded_size
from data.boxes import scale_boxes
from data.coco_document import read_document
from data.counts import counted
from data.outside import outside_line
from data.transforms import Resizing
from data.validation import box_fault, has_area, plain_file_name, record_problems, repeated_objects
from detector import ModelConfig, build_references
from detector.matcher import NEGATIVE
from detector.monitor import best_reference_ious
from engine.metrics.matching import MAX_DETECTIONS, SIZES
from engine.run.config import Config
from engine.run.datasets import category_difference
from engine.run.image_check import exif_notes, look_at_images

EXAMPLES = 3  # of each kind of problem
ANCHOR_COLUMNS = ("positives", "unmatched", "unreached")
CACHED_SIZES = 32  # of images, with all their reference boxes
HALF = 0.5  # IoU from which an anchor overlaps an object well; matchers force fewer on the others


@dataclass
class SplitReport:
    """Findings about one split.

    Attributes:
        problems: kind -> messages, in the order found; what training or evaluation cannot use or will change.
        num_images, num_empty: images, and those of them without objects.
        classes: names in label order, with the columns `objects`, `crowd`, `images`, and of the anchors (objects
            alone, at the size that training resizes to) `positives`, the mean number per object, `unmatched`, the
            share of objects that no anchor is positive for, and `unreached`, of those that none overlaps by HALF.
        sides: (n,) square roots of the objects' areas in pixels of the files; resized_sides: as training sees them.
        notes: what is no problem, but good to know.
        undefined: metrics that will be -1, with the reason.
        digests: of the image files, by index; empty where they were not read.
    """

    problems: dict[str, list[str]]
    num_images: int
    num_empty: int
    classes: dict[str, dict[str, float]]
    sides: np.ndarray
    resized_sides: np.ndarray
    notes: list[str] = field(default_factory=list)
    undefined: dict[str, str] = field(default_factory=dict)
    digests: list[bytes | None] = field(default_factory=list)


def check_split(dataset: CocoDetection, model: ModelConfig, resize: Resizing, read_images: bool) -> SplitReport:
    """Looks at every entry of the annotation file and, with `read_images`, at every image file.

    Args:
        dataset: made with on_error="skip", so that statistics are of what can be used.
        model: of its anchors and matcher.
        resize: the resizing of training images.
    """
    document = read_document(dataset.annotation_file, images_only=not dataset.has_annotations)
    problems = _annotation_problems(document)
    if dataset.has_annotations and not dataset.has_objects:
        problems["annotations: no object"].append("there is nothing to train on, or to compare detections with")
    looks = look_at_images(dataset) if read_images else []
    for look in looks:
        if look.error is not None:
            problems[f"image files: {look.error.kind}"].append(f"{look.error} (image id {look.image_id})")
    targets = [dataset.objects(index) for index in range(len(dataset))]
    boxes = torch.cat([target["boxes"][~target["crowd"]] for target in targets])
    own_sizes = [(int(height), int(width)) for height, width in dataset.sizes]
    sizes = [resize.output_size(own) for own in own_sizes]
    resized = [
        {**target, "boxes": scale_boxes(target["boxes"], own, size)}
        for target, own, size in zip(targets, own_sizes, sizes, strict=True)
    ]
    resized_boxes = torch.cat([target["boxes"][~target["crowd"]] for target in resized])
    return SplitReport(
        problems=dict(problems),
        num_images=len(dataset),
        num_empty=sum(len(target["boxes"]) == 0 for target in targets),
        classes=_class_table(dataset.class_names, resized, model, sizes),
        sides=_sides(boxes),
        resized_sides=_sides(resized_boxes),
        notes=[*exif_notes(looks, dataset.exif), *_notes(dataset)],
        undefined=_undefined_metrics(dataset) if dataset.has_annotations else {"all": "there are no annotations"},
        digests=[look.digest for look in looks],
    )


def reasons_not_to_combine(datasets: dict[str, CocoDetection], reports: dict[str, SplitReport]) -> list[str]:
    """Reasons not to use splits together, a line each; the first split is the one to train on.

    Args:
        datasets, reports: by name of the split.
    """
    first, *others = datasets
    lines = []
    for name in others:
        if (difference := category_difference(datasets[name], datasets[first])) is not None:
            lines.append(f"{name}: {difference}")
        shared = datasets[name].images_shared_with(datasets[first])
        digests = set(reports[first].digests) - {None}
        shared = max(shared, sum(digest in digests for digest in reports[name].digests))
        if shared:
            of_all, verb = counted(len(datasets[name]), "image"), "is" if shared == 1 else "are"
            lines.append(f"{name}: {shared} of {of_all} {verb} in {first} too: metrics on them say little of others")
    return lines


def training_refusals(config: Config, training: CocoDetection) -> list[str]:
    """Keys of a configuration that do not go with its training split, a line each."""
    data, lines = config.data, []
    if data.val_split == data.train_split:
        lines.append("data.val_split: it is the training split: metrics on it say little of other images")
    if not training.has_annotations:
        lines.append(f"{training.annotation_file}: no annotations to train on; set data.train_split")
    try:
        TrainBatchSampler(len(training), data.batch_size, accumulate=data.accumulate)
    except DatasetError as error:
        lines.append(str(error))
    return lines


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
        if "area" in record and not has_area(record):
            kind = "annotations: 'area' is no number from 0 on, and taken from the box"
            problems[kind].append(f"{where}: 'area' is {record['area']!r}")
    usable = [(i, record) for i, record in enumerate(document["annotations"]) if i not in unusable["annotations"]]
    for repeated in repeated_objects([record for _, record in usable]):
        position, record = usable[repeated]
        problems["annotations: objects that repeat another of the same image, class and box"].append(
            f"annotations[{position}] (id {record.get('id')}): {record['bbox']} in image {record['image_id']}"
        )
    images = [record for i, record in enumerate(document["images"]) if i not in unusable["images"]]
    names = Counter(plain_file_name(record["file_name"]) for record in images)
    for name, count in names.items():
        if count > 1:
            problems["images: file_name occurs more than once"].append(f"{name!r}: {count} images name this file")
    return problems


def _notes(dataset: CocoDetection) -> Iterator[str]:
    """Images outside of the data set's folder, and those with more objects than COCO's metrics count detections."""
    if line := outside_line(dataset.root, map(dataset.path, range(len(dataset)))):
        yield line
    counts = []
    for index in range(len(dataset)):
        target = dataset.objects(index)
        counts.append(int(target["labels"][~target["crowd"]].bincount(minlength=1).max()))
    if crowded := sum(count > MAX_DETECTIONS for count in counts):
        have = "1 image has" if crowded == 1 else f"{crowded} images have"
        yield (
            f"{have} more than {MAX_DETECTIONS} objects of a class (up to {max(counts)}): COCO counts only the "
            f"{MAX_DETECTIONS} best detections of each image and class, so that recall and AP cannot reach 1"
        )


def _class_table(
    names: Sequence[str], targets: Sequence[dict[str, Tensor]], model: ModelConfig, sizes: Sequence[tuple[int, int]]
) -> dict[str, dict[str, float]]:
    references = build_references(model)
    # images of a size, of which there are few, share their reference boxes
    boxes_of = None if references is None else lru_cache(CACHED_SIZES)(references.boxes)
    count = len(names)
    table = {key: torch.zeros(count) for key in ("objects", "crowd", "images", *ANCHOR_COLUMNS)}
    for target, size in zip(targets, sizes, strict=True):
        crowd = target["crowd"]
        boxes, labels = target["boxes"][~crowd], target["labels"][~crowd]
        table["objects"] += labels.bincount(minlength=count)
        table["crowd"] += target["labels"][crowd].bincount(minlength=count)
        table["images"][target["labels"].unique()] += 1
        if len(boxes) == 0 or references is None or boxes_of is None:
            continue
        boxes_per_level = boxes_of(padded_size(size))
        matches = references.match(boxes_per_level, boxes)
        positives = matches[matches > NEGATIVE].bincount(minlength=len(boxes))
        table["positives"] += labels.bincount(positives.float(), minlength=count)
        table["unmatched"] += labels.bincount((positives == 0).float(), minlength=count)
        unreached = best_reference_ious(torch.cat(boxes_per_level), boxes) < HALF
        table["unreached"] += labels.bincount(unreached.float(), minlength=count)
    for key in ANCHOR_COLUMNS:
        table[key] /= table["objects"].clamp(min=1)
    return {name: {key: float(values[i]) for key, values in table.items()} for i, name in enumerate(names)}


def _sides(boxes: Tensor) -> np.ndarray:
    return (boxes[:, 2:] - boxes[:, :2]).prod(dim=1).sqrt().numpy()


def _undefined_metrics(dataset: CocoDetection) -> dict[str, str]:
    """COCO metrics without any ground truth to be computed from; COCO ignores crowd regions and measures `area`."""
    content = dataset.ground_truth
    assert isinstance(content, dict)  # as on_error is "skip"
    classes = set(dataset.category_ids)
    areas, present = [], set()
    for record in content["annotations"]:
        if record["category_id"] in classes and not record.get("iscrowd"):
            areas.append(record["area"] if has_area(record) else record["bbox"][2] * record["bbox"][3])
            present.add(record["category_id"])
    if not areas:
        return {"all": "there is no object"}
    undefined = {}
    for label, (low, high) in SIZES.items():
        if not any(low <= area <= high for area in areas):
            limits = f"of at least {low:g}" if label == "large" else f"from {low:g} to {high:g}"
            undefined[f"AP{label[0]}, AR{label[0]}, oLRP_{label[0]}"] = f"there is no object {limits} square pixels"
    for category, name in zip(dataset.category_ids, dataset.class_names, strict=True):
        if category not in present:
            undefined[f"AP and oLRP of {name!r}"] = "there is no object of this class"
    return undefined
