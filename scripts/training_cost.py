"""What an epoch and a whole recipe cost on given hardware, from the measured speed of one GPU.

python scripts/training_cost.py configs/r50_alrp.yaml --rate 250 --gpus 8 --bandwidth 12.5
python scripts/training_cost.py configs/r50_alrp.yaml configs/r101_alrp_atss.yaml --benchmark train.json --gpus 16 \\
    --bandwidth 3 --price 2.5

The rate is that of the first config; of the others it is scaled by the multiply-adds of an image. Epochs and recipes
lie between two assumptions: all communication hidden behind computation, and none of it. Not counted: evaluations,
checkpoints, waiting for data, the latency of messages.
"""

import argparse
import json
import sys
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from model_table import NUM_CLASSES, cost
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from data.annotations import read_document
from data.synthetic.scene import CLASSES
from engine.run.checkpoint import load_checkpoint
from engine.run.cli import ArgumentParser, user_errors
from engine.run.config import Config, ConfigError, load_config
from engine.tools.training_cost import estimate_cost, estimate_traffic

COCO_IMAGES = 118_287  # of train2017, with and without objects: training drops none


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="+", metavar="CONFIG", type=Path, help="the first is the measured one")
    speed = parser.add_mutually_exclusive_group(required=True)
    speed.add_argument("--rate", type=positive_number, metavar="R", help="images per second that one GPU trains")
    speed.add_argument("--benchmark", type=Path, metavar="FILE", help="of scripts/benchmark.py train --json FILE")
    speed.add_argument("--run", type=Path, metavar="DIR", help="run folder: median of perf/images_per_second")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="bfloat16", help="of --benchmark")
    parser.add_argument("--gpus", type=int, metavar="N", default=1, help="over all hosts (1)")
    parser.add_argument(
        "--bandwidth",
        type=positive_number,
        metavar="GB/s",
        help="a GPU's, one way, through the narrowest link between GPUs",
    )
    parser.add_argument("--images", type=int, metavar="N", help="training images (those of data.root, else COCO's)")
    parser.add_argument(
        "--positives", type=positive_number, metavar="P", default=100.0, help="positive anchors an image (100)"
    )
    parser.add_argument("--price", type=positive_number, metavar="MONEY", help="of a GPU hour")
    args = parser.parse_args()
    if args.gpus < 1 or (args.images is not None and args.images < 1):
        parser.error("--gpus and --images must be positive")
    if args.gpus > 1 and args.bandwidth is None:
        parser.error("--gpus above 1 needs --bandwidth")
    with user_errors():
        configs = {path.stem: load_config(path) for path in args.configs}
        rate = args.rate or (
            rate_of_benchmark(args.benchmark, args.precision) if args.benchmark else rate_of_run(args.run)
        )
        rows = [row(name, config, rate, next(iter(configs.values())), args) for name, config in configs.items()]
    print(f"{args.gpus} GPU(s), {rate:.4g} images/s on one with {args.configs[0].stem}", end="")
    print(f", {args.bandwidth:g} GB/s, {args.positives:g} positives an image" if args.gpus > 1 else "")
    print("| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0]), sep="\n")
    for each in rows:
        print("| " + " | ".join(each.values()) + " |")


def row(name: str, config: Config, rate: float, measured: Config, args: argparse.Namespace) -> dict[str, str]:
    """Cells of the table by column."""
    num_images, num_classes = size_of_data(config)
    traffic = estimate_traffic(config, num_classes, args.gpus, args.positives)
    rate *= multiply_adds(measured) / multiply_adds(config)
    bandwidth = (args.bandwidth or 1) * 1e9
    result = estimate_cost(config, args.images or num_images, rate, args.gpus, traffic, bandwidth)
    hours = result.recipe_hours
    cells = {
        "config": name,
        "images": str(args.images or num_images),
        "steps per epoch": str(result.steps_per_epoch),
        "ms per step: compute": _number(1e3 * result.compute),
        "communication": _number(1e3 * result.communication),
        "MB sent: gradients": f"{traffic.gradients / 1e6:.1f}",
        "ranking": f"{traffic.ranking / 1e6:.3f}",
        "norm": f"{traffic.norm / 1e6:.3f}",
        "minutes per epoch": _span(*(seconds / 60 for seconds in result.epoch_seconds)),
        "epochs": str(result.epochs),
        "hours": _span(*hours),
        "GPU hours": _span(*(args.gpus * each for each in hours)),
    }
    if args.price is not None:
        cells["price"] = _span(*(args.price * args.gpus * each for each in hours))
    return cells


def multiply_adds(config: Config) -> int:
    """Of one training image; where its size is drawn at random, of the largest."""
    sides = config.data.short_sides
    return cost(config, config.data.train_size if sides is None else (sides[1], config.data.long_side))[1]


def size_of_data(config: Config) -> tuple[int, int]:
    """Training images and classes: of the annotation file if it is there, else as planned, else COCO's."""
    data = config.data
    path = Path(data.root) / "annotations" / f"instances_{data.train_split}.json"
    if path.is_file():
        document = read_document(path)
        return len(document["images"]), len(data.classes or document["categories"])
    if data.generate is not None:
        return data.generate.train, len(CLASSES)
    return COCO_IMAGES, len(data.classes) if data.classes else NUM_CLASSES


def rate_of_benchmark(path: Path, precision: str) -> float:
    """Images per second of our step with aLRP. Raises ConfigError."""
    try:
        tables: dict[str, list[dict[str, Any]]] = json.loads(path.read_text())["tables"]
        rows = [each for table in tables.values() for each in table]
        return next(
            each["images/s"]
            for each in rows
            if each.get("precision") == precision and "ours" in each["step"] and "aLRP" in each["step"]
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
        raise ConfigError(
            f"--benchmark {path}: no {precision} row of ours with aLRP in it; write it with "
            "scripts/benchmark.py train --json FILE"
        ) from error


def rate_of_run(folder: Path) -> float:
    """Images per second and process of a run, the first point left out: it holds the start. Raises ConfigError."""
    events = EventAccumulator(str(folder)).Reload()
    if "perf/images_per_second" not in events.Tags()["scalars"]:
        raise ConfigError(f"--run {folder}: no points of perf/images_per_second there; name a run folder")
    values = [point.value for point in events.Scalars("perf/images_per_second")]
    return median(values[1:] or values) / load_checkpoint(folder / "checkpoints/last.pt")["world_size"]


def positive_number(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError
    return value


def _span(low: float, high: float) -> str:
    return _number(low) if low == high else f"{_number(low)}–{_number(high)}"


def _number(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


if __name__ == "__main__":
    main()
