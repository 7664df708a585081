"""Writes checkpoints of format 1, as revision efdaf8b wrote them: names and shapes by rule, values by a seed per name.

`LAYOUT_DIGEST` was taken from a file of that revision (the configuration below, three steps): it keeps the rules true.
"""

import hashlib
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

LAYOUT_DIGEST = "fd2842c6adf97e99c62d1f7ed6679da09c447a3be44fb66825887c596051539c"
NUM_CLASSES, NUM_ANCHORS, PYRAMID = 6, 6, 32
WIDTHS = (64, 128, 256, 512)
BALANCE = "criterion.self_balance."
# Everything that efdaf8b wrote into `config`, the keys of all losses included, but for the folders.
CONFIG = json.loads(
    """
    {"model": {"backbone": "resnet18", "deformable": false, "norm": "group", "frozen_stages": 0, "weights": null,
      "init_from": null, "fpn_channels": 32, "head_convs": 1, "head_norm": null, "p6_from": "c5", "p7_relu": false,
      "prior": 0.01, "anchor_ratios": [0.5, 1.0, 2.0], "anchor_octave_scales": [1.0, 1.4142135623730951],
      "anchor_base_scale": 4.0, "box_convention": "paper", "matcher": "max_iou", "score_thresh": 0.0,
      "topk_candidates": 1000, "nms_thresh": 0.5, "detections_per_img": 100},
     "loss": {"name": "alrp", "loc_error": "giou", "box_loss": "smooth_l1", "box_weights": "rank", "delta": 1.0,
      "ranking": "global", "self_balance": true, "balance_every": null, "alpha": 0.25, "gamma": 2.0},
     "data": {"root": "", "train_split": "train", "val_split": "val", "test_split": null, "classes": null,
      "generate": null, "image_size": 64, "short_side": null, "long_side": null, "augmentation": "hvflip",
      "batch_size": 4, "accumulate": 1, "workers": 0, "cache": false, "crowd": "background", "on_error": "stop"},
     "optimizer": {"lr": 0.01, "base_batch_size": 4, "scale_lr": true, "momentum": 0.9, "weight_decay": 0.0001,
      "clip_grad_norm": 10.0, "ema_decay": 0.9},
     "schedule": {"epochs": 2, "kind": "step", "milestones": [1], "gamma": 0.1, "warmup_steps": 2,
      "warmup_factor": 0.001, "max_steps": null},
     "evaluation": {"every": 1, "batch_size": 4, "short_side": null, "long_side": null, "resize": "paper",
      "flip": false, "extra_short_sides": []},
     "run": {"dir": "runs", "name": "tiny", "seed": 0, "device": "cpu", "precision": "float32", "compile": false,
      "log_every": 1, "diagnose": false, "checkpoint_every": null, "checkpoint_minutes": null, "keep_checkpoints": 2,
      "collective_minutes": 10.0, "max_bad_steps": 10}}
    """
)
GROUP = {"lr": 0.01, "momentum": 0.9, "dampening": 0, "weight_decay": 0.0001, "nesterov": False, "maximize": False}
GROUP |= {"foreach": None, "differentiable": False, "fused": True}


def parameter_shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of the parameters of the small RetinaNet, in their order."""
    yield "backbone.conv1.weight", (64, 3, 7, 7)
    yield from _norm("backbone.bn1", 64)
    width_in = 64
    for stage, width in enumerate(WIDTHS, start=1):
        for block in range(2):
            name = f"backbone.layer{stage}.{block}"
            for index, channels in enumerate((width_in, width), start=1):
                yield f"{name}.conv{index}.weight", (width, channels, 3, 3)
                yield from _norm(f"{name}.bn{index}", width)
            if width_in != width:
                yield f"{name}.downsample.0.weight", (width, width_in, 1, 1)
                yield from _norm(f"{name}.downsample.1", width)
            width_in = width
    for level, width in enumerate(WIDTHS[1:]):
        yield from _conv(f"fpn.lateral_convs.{level}", width, PYRAMID, 1)
    for level in range(3):
        yield from _conv(f"fpn.output_convs.{level}", PYRAMID, PYRAMID, 3)
    yield from _conv("fpn.p6", WIDTHS[-1], PYRAMID, 3)
    yield from _conv("fpn.p7", PYRAMID, PYRAMID, 3)
    for tower in ("cls", "box"):
        yield from _conv(f"head.{tower}_tower.0", PYRAMID, PYRAMID, 3)
    yield from _conv("head.cls_logits", PYRAMID, NUM_ANCHORS * NUM_CLASSES, 3)
    yield from _conv("head.box_deltas", PYRAMID, NUM_ANCHORS * 4, 3)


def write_format1(
    path: Path, root: Path, class_names: list[str], loss: dict[str, Any], step: int = 3
) -> dict[str, Any]:
    """A run after its first epoch of `step` steps, on the data of `root`; returns what was written."""
    config = CONFIG | {"data": CONFIG["data"] | {"root": str(root)}, "loss": CONFIG["loss"] | loss}
    config |= {"run": CONFIG["run"] | {"dir": str(path.parents[2]), "name": path.parents[1].name}}
    weights = {name: _tensor(name, shape) for name, shape in parameter_shapes()}
    momentum = [_tensor(f"momentum of {name}", shape) for name, shape in parameter_shapes()]
    if config["loss"]["name"] == "alrp" and config["loss"]["self_balance"]:
        values = {"weight": 33.0, "cls_sum": 0.0, "loc_sum": 0.0}
        weights |= {BALANCE + name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}
    state = {
        "format": 1,
        "model": weights,
        "optimizer": {
            "state": {index: {"momentum_buffer": value} for index, value in enumerate(momentum)},
            "param_groups": [GROUP | {"params": list(range(len(momentum)))}],
        },
        "step": 3,
        "skipped": 0,
        "skipped_in_a_row": 0,
        "ema": {name: value.clone() for name, value in weights.items()},
        "config": config,
        "epoch": 1,
        "classes": class_names,
        "category_ids": list(range(1, len(class_names) + 1)),
        "thresholds": [0.5] * len(class_names),
        "best_ap": 0.01,
        "evaluated_step": 3,
        "world_size": 1,
    }
    path.parent.mkdir(parents=True)
    torch.save(state, path)
    return state


def layout_digest(state: dict[str, Any]) -> str:
    """Of names, shapes and types of all tensors, the names of all entries, and the keys of the configuration."""
    lines = [f"{name} {tuple(value.shape)} {value.dtype}" for name, value in state["model"].items()]
    lines += [*state["ema"], *map(str, state["optimizer"]["state"]), *sorted(state["optimizer"]["param_groups"][0])]
    lines += sorted(state) + [f"{group}.{key}" for group, keys in state["config"].items() for key in keys]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _norm(name: str, channels: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (channels,)
    yield f"{name}.bias", (channels,)


def _conv(name: str, channels: int, out: int, side: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (out, channels, side, side)
    yield f"{name}.bias", (out,)


def _tensor(name: str, shape: tuple[int, ...]) -> Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    return 0.02 * torch.randn(shape, generator=generator) + (len(shape) == 1 and name.endswith("weight"))
