"""A short experiment file for a data set, each value with its reason."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from data import CocoDetection, DatasetError
from data.coco_document import read_document
from data.counts import counted
from data.splits import find_splits
from data.validation import record_problems
from detector import build_references
from detector.families import start_keys
from engine.diagnosis.anchor_fit import anchor_fit, best_base_scale
from engine.run.checkpoint import load_checkpoint
from engine.run.config import Config, ConfigError, parse_config
from losses.overlaps import box_area

DEFAULT_START = "torchvision/retinanet_resnet50_fpn_v2"

# The network of configs/bccd_r18_alrp.yaml, which learns without any weights.
FROM_SCRATCH: dict[str, Any] = {
    "backbone": "resnet18",
    "norm": "batch",
    "frozen_stages": 0,
    "weights": None,
    "fpn_channels": 128,
    "head_convs": 2,
    "head_norm": "group",
}
LONG_SIDES = (320, 1024)  # pixels: images are made no smaller, and no larger
MOST_ENLARGED = 2.0  # pixels made up tell nothing more
ANCHOR_IMAGES = 40  # that anchors are chosen by


@dataclass(frozen=True)
class Plan:
    """Numbers that differ between training from a detector's weights and from none.

    Attributes:
        small: side of the smallest objects that its anchors can fit, pixels.
        easy: objects of this side need no larger image, pixels. Half the side is a quarter of the time, which decides
            where there is no GPU.
        lr: learning rate for 8 images a step.
        images: to be seen in training, all epochs together; epochs: the fewest and the most.
    """

    small: int
    easy: int
    lr: float
    images: int
    epochs: tuple[int, int]


STARTED = Plan(small=20, easy=64, lr=0.002, images=4000, epochs=(10, 100))
SCRATCH = Plan(small=16, easy=16, lr=0.04, images=8000, epochs=(10, 200))


def require_name(output: Path) -> None:
    """Raises ConfigError where the file has a name that its runs, which get it, cannot have."""
    try:
        parse_config({}, str(output), name=output.stem)
    except ConfigError as error:
        name = re.sub(r"[^\w.+=-]+", "_", output.stem).lstrip("_.+=-") or "mine"
        raise ConfigError(
            f"{output}: its runs get its name, which may have letters, digits and . _ + = - and begins with a letter, "
            f"a digit or _; choose another --output, such as {output.with_name(name + output.suffix)}"
        ) from error


def new_config(root: str, init_from: str | None) -> str:
    """The text of an experiment file.

    Args:
        root: folder of a data set in COCO format.
        init_from: `model.init_from`, a name or a checkpoint; None trains from scratch.
    Raises:
        DatasetError: no splits to train and validate on, or no objects.
        CheckpointError: the checkpoint cannot be used.
    """
    splits = find_splits(Path(root))
    dataset = CocoDetection(root, splits.train, on_error="skip")
    sides = _object_sides(dataset)
    start, optimizer, plan = _start(init_from)
    short, long = image_sides(dataset.sizes, sides, plan)
    batch = min(8 if len(dataset) >= 64 else 4, len(dataset))
    epochs = min(max(-(-plan.images // len(dataset)), plan.epochs[0]), plan.epochs[1])
    steps = epochs * (len(dataset) // batch)
    values: dict[str, dict[str, Any]] = {
        **start,
        "data": {
            "root": root,
            **{f"{role}_split": name for role, name in splits._asdict().items()},
            "short_side": short,
            "long_side": long,
            "augmentation": "flip",
            "batch_size": batch,
        },
        "optimizer": {**optimizer, "lr": plan.lr * batch / 8, "base_batch_size": batch, "clip_grad_norm": 10.0},
        "schedule": {"epochs": epochs, "kind": "cosine", "warmup_steps": min(500, max(1, steps // 10))},
        "evaluation": {"every": max(1, epochs // 20), "short_side": short, "long_side": long},
    }
    anchors = _choose_anchors(dataset, values)
    median = np.median(dataset.sizes, axis=0).astype(int)
    reasons = {
        "model": _about_start(init_from),
        "model.anchor_base_scale": anchors,
        "data.test_split": "none found" if splits.test is None else "",
        "loss": "that of the start",
        "data.short_side": f"keeps the shape; the images have {median[1]}×{median[0]} pixels (median), the objects "
        f"{np.quantile(sides, 0.1):.0f} and more (nine of ten)",
        "data.batch_size": f"of {counted(len(dataset), 'training image')}",
        "optimizer.lr": f"for {counted(batch, 'image')} a step; the first to vary, by factors of 2",
        "schedule.epochs": f"{counted(steps, 'step')}, {counted(epochs * len(dataset), 'image')}",
        "evaluation.short_side": "as in training",
    }
    if "anchor_base_scale" not in values["model"]:
        reasons["model"] += f"; {anchors}"
    return _as_text(values, reasons)


def image_sides(sizes: np.ndarray, sides: np.ndarray, plan: Plan) -> tuple[int, int]:
    """Short and long side to resize images to, pixels: no larger than their objects need.

    The smallest tenth of the objects gets sides up to `plan.easy`; images are enlarged only where it has less than
    `plan.small`, and at most MOST_ENLARGED times.

    Args:
        sizes: (N, 2) heights and widths of the images.
        sides: (n,) square roots of the objects' areas, pixels of the files.
    """
    tenth = float(np.quantile(sides, 0.1))
    scale = min(1.0, plan.easy / tenth) if tenth >= plan.small else min(MOST_ENLARGED, plan.small / tenth)
    own = float(np.median(sizes.max(axis=1)))
    lowest, highest = min(own, LONG_SIDES[0]), LONG_SIDES[1]
    long = 32 * round(min(max(own * scale, lowest), highest) / 32)
    short = round(long * float(np.median(sizes.min(axis=1) / sizes.max(axis=1))))
    return max(32, short), max(32, long)


def _object_sides(dataset: CocoDetection) -> np.ndarray:
    targets = [dataset.objects(index) for index in range(len(dataset))]
    boxes = torch.cat([target["boxes"][~target["crowd"]] for target in targets])
    if not len(boxes):
        raise DatasetError(
            f"{dataset.annotation_file}: no object in {counted(len(dataset), 'image')} to train on{_left_out(dataset)}"
        )
    return box_area(boxes).sqrt().numpy()


def _left_out(dataset: CocoDetection) -> str:
    """The end of that line: how many entries of the file cannot be used, and the first of them; or what to do else."""
    problems = list(record_problems(read_document(dataset.annotation_file)))
    if not problems:
        return "; label some"
    return f": {len(problems)} of its entries cannot be used, the first {problems[0].message}; mend them"


def _start(init_from: str | None) -> tuple[dict[str, dict[str, Any]], dict[str, Any], Plan]:
    """Groups `model` and, for a checkpoint trained with another loss than the usual one, `loss`; what is unusual of its
    optimizer, which its rate is for; and the plan.

    Of a checkpoint's keys those that its loss or its family do not bring along.
    """
    if init_from is None:
        return {"model": dict(FROM_SCRATCH)}, {}, SCRATCH
    if start_keys({"init_from": init_from}):
        return {"model": {"init_from": init_from}}, {}, STARTED
    saved = parse_config(load_checkpoint(init_from)["config"], init_from)
    usual = _parsed({"model": {"family": saved.model.family}, "loss": {"name": saved.loss.name}})
    model = _differences(saved.model.model_dump(mode="json"), usual.model.model_dump(mode="json"))
    for key in ("init_from", "weights"):  # what that detector began its own training from is no part of its network
        model.pop(key, None)
    loss = _differences(asdict(saved.loss), asdict(usual.loss))
    if saved.loss.name != _parsed({"model": {"family": saved.model.family}}).loss.name:
        loss = {"name": saved.loss.name, **loss}
    half = saved.optimizer.lr / saved.optimizer.base_batch_size * 8 / 2
    family = {} if saved.model.family == _parsed({}).model.family else {"family": saved.model.family}
    groups = {"model": {"init_from": init_from, **family, **model}, **({"loss": loss} if loss else {})}
    optimizer = {"name": saved.optimizer.name} if saved.optimizer.name != usual.optimizer.name else {}
    return groups, optimizer, replace(STARTED, lr=half)


def _about_start(init_from: str | None) -> str:
    if init_from is None:
        return "nothing is pretrained"
    if start_keys({"init_from": init_from}):
        return "a trained detector; its class head starts afresh"
    return "a trained detector, with its class head where the classes are the same"


def _differences(values: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value != usual[key]}


def _choose_anchors(dataset: CocoDetection, values: dict[str, dict[str, Any]]) -> str:
    """Sets `model.anchor_base_scale` where the network is a new one, and says how the anchors fit."""
    config = _parsed(values)
    if build_references(config.model) is None:
        return "its detector has no anchors"
    if "init_from" not in values["model"]:
        values["model"]["anchor_base_scale"] = round(
            best_base_scale(dataset, config.model, config.data, ANCHOR_IMAGES), 3
        )
        config = _parsed(values)
    fit = anchor_fit(dataset, config.model, config.data, ANCHOR_IMAGES)
    assert fit is not None
    return f"{1 - fit.missed['all']:.0%} of the objects have an anchor that fits"


def _parsed(values: Mapping[str, Any]) -> Config:
    return parse_config(json.loads(json.dumps(values)), "new_config")


def _as_text(values: Mapping[str, Mapping[str, Any]], reasons: Mapping[str, str]) -> str:
    lines: list[str] = []
    for group, keys in values.items():
        lines.append(_commented(f"{group}:", reasons.get(group, "")))
        for key, value in keys.items():
            text = yaml.safe_dump(value, default_flow_style=True, width=1000).splitlines()[0]
            lines.append(_commented(f"  {key}: {text}", reasons.get(f"{group}.{key}", "")))
    return "\n".join(lines) + "\n"


def _commented(line: str, reason: str) -> str:
    return f"{line} # {reason}" if reason else line


def next_commands(output: Path) -> Sequence[str]:
    """What to do with the file."""
    return (
        f"python scripts/check_dataset.py --config {output}",
        f"python train.py --config {output} --dry-run",
        f"python train.py --config {output}",
    )
