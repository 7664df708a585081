"""The table of scripts/training_cost.py: what recipes cost, from the speed that was measured with one of them."""

import argparse
from pathlib import Path
from statistics import median
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from data.coco_document import read_document
from data.synthetic.scene import CLASSES
from data.text_files import read_json
from engine.run.checkpoint import load_checkpoint
from engine.run.config import Config, ConfigError
from engine.tools.model_table import NUM_CLASSES, cost
from engine.tools.training_cost import estimate_cost, estimate_traffic

COCO_IMAGES = 118_287  # of train2017, with and without objects: training drops none


def cost_row(name: str, config: Config, rate: float, measured: Config, args: argparse.Namespace) -> dict[str, str]:
    """Cells of the table by column.

    Args:
        rate: images per second that one GPU trains with the config `measured`.
        args: options of scripts/training_cost.py.
    """
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
    data, size = config.data, config.data.train_size
    if data.short_sides is not None and data.long_side is not None:
        size = data.short_sides[1], data.long_side
    return cost(config, size)[1]


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
        tables: dict[str, list[dict[str, Any]]] = read_json(path)["tables"]
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
    events = EventAccumulator(str(folder))
    if not folder.is_dir() or "perf/images_per_second" not in events.Reload().Tags()["scalars"]:
        raise ConfigError(f"--run {folder}: no points of perf/images_per_second there; name a run folder")
    values = [point.value for point in events.Scalars("perf/images_per_second")]
    checkpoint = folder / "checkpoints/last.pt"
    if (processes := load_checkpoint(checkpoint).get("world_size")) is None:
        raise ConfigError(f"{checkpoint}: does not say how many processes it was trained on; give --rate")
    return median(values[1:] or values) / processes


def _span(low: float, high: float) -> str:
    return _number(low) if low == high else f"{_number(low)}–{_number(high)}"


def _number(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"
