"""The commands as a whole on data of COCO's kind: train.py's rate beside that of its step, and eval.py's time."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmarks.coco_like import make_coco_like
from benchmarks.loss_batches import SMALL
from benchmarks.timing import interleave
from data import train_loader
from engine.run.config import Config, load_config
from engine.run.datasets import training_set
from engine.run.distributed import Processes
from engine.run.schedule import build_schedule
from engine.training.train_step import TrainStep

ROOT = Path(__file__).resolve().parents[2]
NUM_STEPS, WARM_UP, STEP_REPETITIONS = 320, 50, 20
LAST_IMAGES = 16  # of the evaluation with which every training ends
WARNING_SIGNS = ("Warning:", "runs without", "slower operators")  # in lines of a command that says what it cannot use
MOST_WARNINGS = 5


def run_settings(folder: Path, splits: dict[str, str], device: str, steps: int, small: bool) -> list[str]:
    """Settings of a training on the generated splits in `folder`; `small` is a network for tests on a CPU."""
    settings = [f"data.root={folder}/data", f"data.train_split={splits['train']}", f"data.val_split={splits['few']}"]
    settings += [f"run.dir={folder}/runs", "run.name=benchmark", f"run.device={device}", "optimizer.lr=1.0e-6"]
    settings += [f"schedule.max_steps={steps}", "evaluation.every=99", "data.workers=16", "model.weights=null"]
    if small:
        settings += [*SMALL, "model.head_convs=1"]
        settings += ["data.batch_size=2", "optimizer.base_batch_size=2", "data.workers=1", "run.log_every=1"]
        settings += ["evaluation.short_side=64", "evaluation.long_side=96", "evaluation.batch_size=2"]
    return settings


def benchmark_training(folder: Path, device: str, images: int, steps: int, small: bool) -> list[dict]:
    """Row of train.py on generated images, with a checkpoint each epoch; of its step alone on one batch beside it."""
    splits = make_coco_like(folder / "data", {"train": images, "few": LAST_IMAGES})
    settings = run_settings(folder, splits, device, steps, small)
    _run("train.py", "--config", "configs/r50_alrp.yaml", "--overwrite", *settings)
    events = EventAccumulator(str(folder / "runs/benchmark")).Reload()
    skipped = min(WARM_UP, steps // 2)
    rate, waiting, memory = (
        median([point.value for point in events.Scalars(f"perf/{name}") if point.step > skipped])
        for name in ("images_per_second", "data_wait", "memory_gb")
    )
    alone = _step_rate(load_config(ROOT / "configs/r50_alrp.yaml", settings))
    row = {"images/s": rate, "of the step alone": alone, "share": rate / alone, "waiting for data": waiting}
    return [row | {"peak GB": memory}]


def _step_rate(config: Config) -> float:
    """Images per second of the training step on a batch that is there already."""
    dataset = training_set(config)
    device = torch.device(config.run.device)
    schedule = build_schedule(config, len(dataset))
    step = TrainStep(config, Processes(0, 1, device), schedule, len(dataset.class_names), load_weights=False)
    batch = next(iter(train_loader(dataset, config.data.batch_size)))
    seconds = interleave({"step": lambda: step([batch])}, STEP_REPETITIONS, warm_up=3)["step"]
    return config.data.batch_size / seconds


def benchmark_evaluation(folder: Path, device: str, images: int, small: bool) -> list[dict]:
    """Row of eval.py from start to table on generated images, with as many detections as it may give."""
    splits = make_coco_like(folder / "data", {"train": 64, "few": LAST_IMAGES, "val": images})
    checkpoint = folder / "runs/benchmark/checkpoints/last.pt"
    if not checkpoint.exists():
        settings = run_settings(folder, splits, device, 1, small)
        _run("train.py", "--config", "configs/r50_alrp.yaml", "--overwrite", *settings)
    start = time.perf_counter()
    results = folder / "detections.json"
    line = ["--ckpt", checkpoint, "--detections", results, f"data.val_split={splits['val']}", "model.score_thresh=0"]
    _run("eval.py", *line, f"run.device={device}")
    seconds = time.perf_counter() - start
    detections = len(json.loads(results.read_text()))
    return [
        {
            "images": images,
            "seconds": seconds,
            "images/s": images / seconds,
            "detections per image": detections / images,
        }
    ]


def _run(*line: Any) -> None:
    """Runs a command of the project; of what it prints, stderr gets the first warnings, as they explain its times."""
    done = subprocess.run([sys.executable, *map(str, line)], cwd=ROOT, capture_output=True, text=True, check=False)
    printed = _lines(done.stdout) + _lines(done.stderr)
    said = dict.fromkeys(text for text in printed if any(sign in text for sign in WARNING_SIGNS))
    warnings = [text for text in said if not text.startswith(" ")]  # what is indented is the code that warned
    for warning in warnings[:MOST_WARNINGS]:
        print(f"{line[0]}: {warning}", file=sys.stderr)
    if done.returncode:
        raise SystemExit(f"error: {line[0]} ended with status {done.returncode}: {_lines(done.stderr)[-1]}")


def _lines(text: str) -> list[str]:
    """Lines of a console, where a bar of progress returns to the start of its own."""
    return re.split(r"[\r\n]+", text.strip())
