"""Rows of the table of the COCO models: parameters, multiply-adds, and the AP that others published."""

import re
from pathlib import Path

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from data import padded_size
from detector import build_detector
from detector.families import DEFAULT_FAMILY
from engine.run.config import Config

NUM_CLASSES = 80


def published_line(path: Path) -> str:
    """The line of a config's head comment that gives the published AP, if any."""
    match = re.search(r"^# Published.*", path.read_text(), re.MULTILINE)
    return match[0] if match else ""


def largest_size(config: Config) -> tuple[int, int]:
    """Largest test image: short and long side, or where images are resized to one size, height and width."""
    evaluation = config.evaluation
    if evaluation.short_side is None or evaluation.long_side is None:
        return config.data.train_size
    return evaluation.short_side, evaluation.long_side


def table_row(name: str, config: Config, published: str) -> str:
    minival, test_dev = (re.search(rf"([\d.–]+) (?:AP )?on {split}", published) for split in ("minival", "test-dev"))
    size = largest_size(config)
    parameters, flops = cost(config, size)
    family = "" if config.model.family == DEFAULT_FAMILY else f", {config.model.family}"
    loss = config.loss.label + family + (", ATSS" if getattr(config.model, "matcher", "") == "atss" else "")
    backbone = config.model.backbone + (", deformable" if config.model.deformable else "")
    sizes = f"{size[0]}/{size[1]}"
    published_values = [match[1] if match else "" for match in (minival, test_dev)]
    cells = [f"`configs/{name}.yaml`", loss, backbone, sizes, f"{parameters / 1e6:.2f} M", f"{flops / 1e9:.1f}"]
    return "| " + " | ".join([*cells, *published_values]) + " |"


def cost(config: Config, size: tuple[int, int]) -> tuple[int, int]:
    """Parameters of a model, and multiply-adds of its convolutions and linear layers on an image of (height, width)."""
    with FakeTensorMode():  # shapes only: no memory, no arithmetic
        detector = build_detector(config, NUM_CLASSES, load_weights=False).eval()
        image = torch.empty(1, 3, *padded_size(size))
        deformable = {torch.ops.torchvision.deform_conv2d: _deform_conv_flops}
        with FlopCounterMode(display=False, custom_mapping=deformable) as counter, torch.no_grad():
            detector.outputs(image)
    return sum(parameter.numel() for parameter in detector.parameters()), counter.get_total_flops() // 2


def _deform_conv_flops(x: torch.Size, weight: torch.Size, *_: object, out_shape: torch.Size, **__: object) -> int:
    return conv_flop_count(list(x), list(weight), list(out_shape))
