"""Prints the table of the COCO models in docs/models.md: parameters, GFLOPs, and the AP that others published.

python scripts/model_table.py

GFLOPs count a multiply-add of a convolution once, as detection papers do, on one image of the largest test size, padded
to multiples of 32. The AP is read from each config's head comment.
"""

import re
import sys
from pathlib import Path

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from data import padded_size
from detector import build_detector
from engine.config import Config, load_config

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
NUM_CLASSES = 80
LOSSES = {"alrp": "aLRP", "ap": "AP", "focal": "focal"}


def main() -> None:
    print("| config | loss | backbone | test size | parameters | GFLOPs | minival AP | test-dev AP |")
    print("|---|---|---|---|---|---|---|---|")
    rows = []
    for path in CONFIGS.glob("*.yaml"):
        published = re.search(r"^# Published.*", path.read_text(), re.MULTILINE)
        if published is not None:
            rows.append((path, load_config(path), published[0]))
    for path, config, published in sorted(rows, key=lambda row: (row[1].evaluation.short_side, row[0].stem)):
        print(table_row(path.stem, config, published))


def table_row(name: str, config: Config, published: str) -> str:
    minival, test_dev = (re.search(rf"([\d.–]+) (?:AP )?on {split}", published) for split in ("minival", "test-dev"))
    parameters, flops = cost(config, (config.evaluation.short_side, config.evaluation.long_side))
    loss = LOSSES[config.loss.name] + (", ATSS" if config.model.matcher == "atss" else "")
    backbone = config.model.backbone + (", deformable" if config.model.deformable else "")
    sizes = f"{config.evaluation.short_side}/{config.evaluation.long_side}"
    published_values = [match[1] if match else "" for match in (minival, test_dev)]
    cells = [f"`configs/{name}.yaml`", loss, backbone, sizes, f"{parameters / 1e6:.2f} M", f"{flops / 1e9:.1f}"]
    return "| " + " | ".join([*cells, *published_values]) + " |"


def cost(config: Config, size: tuple[int, int]) -> tuple[int, int]:
    """Parameters of a model, and multiply-adds of its convolutions on an image of (height, width)."""
    with FakeTensorMode():  # shapes only: no memory, no arithmetic
        detector = build_detector(config, NUM_CLASSES, load_weights=False).eval()
        image = torch.empty(1, 3, *padded_size(size))
        deformable = {torch.ops.torchvision.deform_conv2d: _deform_conv_flops}
        with FlopCounterMode(display=False, custom_mapping=deformable) as counter, torch.no_grad():
            detector.raw_outputs(image)
    return sum(parameter.numel() for parameter in detector.parameters()), counter.get_total_flops() // 2


def _deform_conv_flops(x: torch.Size, weight: torch.Size, *_: object, out_shape: torch.Size, **__: object) -> int:
    return conv_flop_count(x, weight, out_shape)


if __name__ == "__main__":
    main()
