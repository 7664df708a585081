"""Whether /dev/shm holds the batches that loader processes hand over through it."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from data import CocoDetection, padded_size
from data.loader import PREFETCH, worker_count
from data.transforms import ResizeShortSide
from engine.run.config import Config, ConfigError
from engine.run.datasets import evaluation_transform

SHARED_MEMORY = Path("/dev/shm")


def require_shared_memory(config: Config, training: CocoDetection | None, evaluation: CocoDetection) -> None:
    """Refuses a start whose loaders would wait for a batch that finds no room.

    Counts the batches made ahead for training, which stay while an evaluation runs, and for evaluation, of all
    processes of this host. To be asked before any of them loads. Without workers nothing is needed.

    Args:
        training: None where nothing is trained.
    Raises:
        ConfigError: too little is free; names the numbers and what to do.
    """
    if config.data.workers == 0 or not SHARED_MEMORY.is_dir():
        return
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    world_size = int(os.environ.get("WORLD_SIZE", 1))
    data = config.data
    batches = [(_evaluation_batch(config, evaluation), 1)]  # (bytes of a batch, how many are in use at a time)
    if training is not None:
        images = max(1, data.batch_size // (world_size * data.accumulate))
        batches.append((images * _area(_training_size(config, training)) * 3, data.accumulate))

    def needed(workers: int) -> int:
        return processes * sum((workers * PREFETCH + used) * size for size, used in batches)

    workers, free = worker_count(data.workers), shutil.disk_usage(SHARED_MEMORY).free
    if needed(workers) <= free:
        return
    fitting = max((count for count in range(1, workers) if needed(count) <= free), default=0)
    raise ConfigError(
        f"{SHARED_MEMORY}: {free / 1e6:.0f} MB are free, and data.workers={data.workers} may need "
        f"{needed(workers) / 1e6:.0f} MB for the batches that {processes * workers} loader processes make ahead; "
        f"enlarge it (docker run --shm-size={_gigabytes(needed(workers))}g), or set data.workers={fitting}"
    )


def _training_size(config: Config, dataset: CocoDetection) -> tuple[int, int]:
    """Upper limits of (height, width) of a training batch."""
    data = config.data
    if data.short_sides is None or data.long_side is None:
        return data.train_size
    if data.augmentation == "ssd":  # crops of any shape
        return data.long_side, data.long_side
    resize = ResizeShortSide(data.short_sides[1], data.long_side)
    heights, widths = zip(*map(resize.output_size, _different_sizes(dataset)), strict=True)
    return max(heights), max(widths)


def _evaluation_batch(config: Config, dataset: CocoDetection) -> int:
    """Bytes of the largest batch; test-time augmentation may enlarge the images."""
    evaluation = config.evaluation
    resize = evaluation_transform(config)
    area = max(_area(resize.output_size(size)) for size in _different_sizes(dataset))
    bytes_per_value = 4 if evaluation.resize == "torchvision" else 1
    enlarged = max([evaluation.short_side or 1, *evaluation.extra_short_sides]) / (evaluation.short_side or 1)
    return int(min(evaluation.batch_size, len(dataset)) * 3 * bytes_per_value * area * enlarged**2)


def _different_sizes(dataset: CocoDetection) -> Iterable[tuple[int, int]]:
    return {(int(height), int(width)) for height, width in dataset.sizes}


def _area(size: tuple[int, int]) -> int:
    height, width = padded_size(size)
    return height * width


def _gigabytes(number: int) -> int:
    """Rounded up, with as much again for everything else that uses it."""
    return -(-2 * number // 10**9)
