"""Prints the table of the COCO models in docs/models.md: parameters, GFLOPs, and the AP that others published.

python scripts/dev/model_table.py
python scripts/dev/model_table.py configs/r50_alrp.yaml configs/r50_focal.yaml

GFLOPs count a multiply-add of a convolution once, as detection papers do, on one image of the largest test size, padded
to multiples of 32. The AP is read from each config's head comment.
"""

import argparse
import re
import sys
from pathlib import Path

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from data import padded_size
from detector import build_detector
from engine.run.cli import ArgumentParser, user_errors
from engine.run.config import Config, load_config

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
NUM_CLASSES = 80


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="*", metavar="CONFIG", type=Path, help="default: all with a published AP")
    args = parser.parse_args()
    with user_errors():
        rows = [(path, load_config(path)) for path in args.configs or CONFIGS.glob("*.yaml")]
        rows = [(path, config, _published(path)) for path, config in rows if args.configs or _published(path)]
    print("| config | loss | backbone | test size | parameters | GFLOPs | minival AP | test-dev AP |")
    print("|---|---|---|---|---|---|---|---|")
    for path, config, published in sorted(rows, key=lambda row: (largest_size(row[1]), row[0].stem)):
        print(table_row(path.stem, config, published))


def _published(path: Path) -> str:
    """The line of a config's head comment that gives the published AP, if any."""
    match = re.search(r"^# Published.*", path.read_text(), re.MULTILINE)
    return match[0] if match else ""


def largest_size(config: Config) -> tuple[int, int]:
    """Largest test image: short and long side, or where images are resized to one size, height and width."""
    evaluation = config.evaluation
    if evaluation.short_side is None:
        return config.data.train_size
    return evaluation.short_side, evaluation.long_side


def table_row(name: str, config: Config, published: str) -> str:
    minival, test_dev = (re.search(rf"([\d.–]+) (?:AP )?on {split}", published) for split in ("minival", "test-dev"))
    size = largest_size(config)
    parameters, flops = cost(config, size)
    loss = config.loss.label + (", ATSS" if getattr(config.model, "matcher", "") == "atss" else "")
    backbone = config.model.backbone + (", deformable" if config.model.deformable else "")
    sizes = f"{size[0]}/{size[1]}"
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
            detector.outputs(image)
    return sum(parameter.numel() for parameter in detector.parameters()), counter.get_total_flops() // 2


def _deform_conv_flops(x: torch.Size, weight: torch.Size, *_: object, out_shape: torch.Size, **__: object) -> int:
    return conv_flop_count(x, weight, out_shape)


if __name__ == "__main__":
    main()
