"""The systems of the paper's Table 1: a training step of each, from images and objects to updated weights."""

import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.memory import peak_memory, reset_peak
from benchmarks.models import make_batch
from benchmarks.timing import interleave
from data.loader import collate
from engine.run.config import Config, load_config
from engine.run.distributed import Processes
from engine.run.schedule import build_schedule
from engine.training.train_step import MicroBatch, TrainStep

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
REPETITIONS = 5


class Suite(NamedTuple):
    """Systems that are compared.

    Attributes:
        systems: name -> a shipped configuration and KEY=VALUE of it; the first is the one that others are a ratio to.
        overrides: KEY=VALUE of all.
        num_classes: K.
    """

    systems: dict[str, list[str]]
    overrides: list[str]
    num_classes: int

    def config(self, system: str) -> Config:
        name, *own = self.systems[system]
        return load_config(CONFIGS / f"{name}.yaml", [*own, *self.overrides])


IN_SMALL = Suite(
    {
        "aLRP Loss": ["bccd_r18_alrp"],
        "AP Loss": ["bccd_r18_alrp", "loss.name=ap"],
        "Focal Loss": ["bccd_r18_focal"],
        "DR Loss": ["bccd_r18_dr"],
        "FreeAnchor": ["bccd_r18_freeanchor"],
        "FCOS": ["bccd_r18_fcos"],
        "FCOS, aLRP Loss": ["bccd_r18_fcos", "loss.name=alrp"],
        "Faster R-CNN": ["bccd_r18_faster_rcnn"],
        "Faster R-CNN, GIoU": ["bccd_r18_faster_rcnn_giou"],
        "Faster R-CNN, aLRP Loss": ["bccd_r18_faster_rcnn_alrp"],
        "CenterNet in small": ["bccd_r18_centernet"],
    },
    [],
    num_classes=3,
)
AS_PUBLISHED = Suite(  # but for the size of images and batches, which is the same for all
    {
        "aLRP Loss": ["r50_alrp"],
        "AP Loss": ["r50_ap"],
        "Focal Loss": ["r50_focal"],
        "DR Loss": ["r50_dr"],
        "FreeAnchor": ["r50_freeanchor"],
        "FCOS": ["r50_fcos"],
        "FCOS, aLRP Loss": ["r50_fcos", "loss.name=alrp"],
        "Faster R-CNN": ["r50_faster_rcnn"],
        "Faster R-CNN, GIoU": ["r50_faster_rcnn_giou"],
        "Faster R-CNN, aLRP Loss": ["r50_faster_rcnn_alrp"],
        "CenterNet": ["hg52_centernet"],
    },
    ["data.image_size=512", "data.short_side=null", "data.long_side=null", "data.batch_size=16"],
    num_classes=80,
)


def benchmark_systems(suite: Suite, device: str) -> list[dict]:
    """Rows of the table: steps in turn in this process, and the peak memory of each system in a process of its own.

    On a CPU times are the processor's, in one thread: what an idle machine takes, whatever else runs beside.
    """
    torch.set_num_threads(1)
    ready = {system: prepare(suite, system, device) for system in suite.systems}
    steps = {system: partial(step, [batch]) for system, (step, batch) in ready.items()}
    clock = time.process_time if device == "cpu" else time.perf_counter
    seconds = interleave(steps, REPETITIONS, clock=clock)
    reference = seconds[next(iter(seconds))]
    rows = []
    for system, (name, *own) in suite.systems.items():
        step, batch = ready[system]
        parameters = sum(parameter.numel() for parameter in step.detector.parameters())
        times = {"ms": 1e3 * seconds[system], "ratio": seconds[system] / reference}
        rows.append(
            {"system": system, "config": " ".join([f"{name}.yaml", *own]), **times}
            | {"images/s": len(batch[0]) / seconds[system], "million parameters": parameters / 1e6}
            | {"peak MiB": in_own_process(suite, system, device)}
        )
    return rows


def prepare(suite: Suite, system: str, device: str) -> tuple[TrainStep, MicroBatch]:
    """The training step of a system, before training, and a batch of noise with eight objects an image."""
    config = suite.config(system)
    schedule = build_schedule(config, config.data.batch_size)
    step = TrainStep(config, Processes(0, 1, torch.device(device)), schedule, suite.num_classes, load_weights=False)
    images, targets = make_batch(config.data.batch_size, config.data.train_size, torch.device("cpu"))
    for target in targets:
        target["labels"] %= suite.num_classes
    return step, collate(list(zip((255 * images).to(torch.uint8), targets, strict=True)))


def in_own_process(suite: Suite, system: str, device: str) -> float | None:
    """`memory_of_steps` of a process that does nothing else; None where it is not counted."""
    if device == "cpu" and sys.platform != "linux":
        return None
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, torch.set_num_threads, (1,)) as pool:
        return pool.submit(memory_of_steps, suite, system, device).result()


def memory_of_steps(suite: Suite, system: str, device: str) -> float:
    """MiB that two steps take at most beyond the libraries: weights, gradients, the optimizer's state, which the first
    step makes, and what is kept for backward."""
    before = reset_peak(device)
    step, batch = prepare(suite, system, device)
    for _ in range(2):
        step([batch])
    return peak_memory(device) - before
