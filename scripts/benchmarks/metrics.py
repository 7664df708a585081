"""AP and oLRP of a results file of COCO's size: from two JSON files to all metrics, against others' AP alone."""

import contextlib
import importlib
import importlib.util
import io
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from engine.metrics import evaluate
from engine.metrics.average_precision import COCO_STATS

NUM_IMAGES, NUM_CLASSES, OBJECTS, DETECTIONS = 5000, 80, 7.3, 100  # the last two of an image, on average
WIDTH, HEIGHT = 640, 480
ROOT = Path(__file__).resolve().parents[2]
REPEATS = 3
PEERS = {  # modules with COCO and with the evaluation, and its name; those that are not installed are left out
    "pycocotools": ("pycocotools.coco", "pycocotools.cocoeval", "COCOeval"),
    "faster-coco-eval": ("faster_coco_eval", "faster_coco_eval", "COCOeval_faster"),
    "hotcoco": ("hotcoco", "hotcoco", "COCOeval"),
}


def benchmark_metrics() -> list[dict]:
    """Rows of the table: medians of REPEATS. Ours runs on one core; processor time is what an idle machine would take
    of it, and of peers what all their threads took."""
    with tempfile.TemporaryDirectory() as folder:
        files = write_files(Path(folder))
        results = {f"{peer}: AP": timed(partial(with_peer, peer, *files)) for peer in PEERS if is_installed(peer)}
        results["ours: AP, oLRP and thresholds"] = timed(partial(ours, *files))
        peak, command_wall, command_processor = timed(partial(peak_of_command, *files))
    reference, _, base = results["pycocotools: AP"]
    rows: list[tuple[str, float, float, str | None, float | None]] = [
        (name, wall, processor, str(stats == reference), None) for name, (stats, wall, processor) in results.items()
    ]
    rows.append(("alrp evaluate", command_wall, command_processor, None, peak))
    return [
        {
            "evaluation": name,
            "s": wall,
            "processor s": processor,
            "ratio": processor / base,
            "same AP and AR": same,
            "peak GiB": memory,
        }
        for name, wall, processor, same, memory in rows
    ]


def timed(run: Callable[[], Any]) -> tuple[Any, float, float]:
    """Result, and medians of the seconds and of the processor's, those of processes waited for included."""
    walls, processors = [], []
    for _ in range(REPEATS):
        start = time.perf_counter(), sum(os.times()[:4])
        result = run()
        walls.append(time.perf_counter() - start[0])
        processors.append(sum(os.times()[:4]) - start[1])
    return result, statistics.median(walls), statistics.median(processors)


def peak_of_command(annotations: Path, detections: Path) -> float:
    """GiB that `alrp evaluate` takes at most, which runs in a process of its own."""
    arguments = ["evaluate", "--annotations", str(annotations), "--detections", str(detections)]
    # getrusage would count what this process held when it forked
    code = f"from engine.metrics.command import main; main({arguments}); print(open('/proc/self/status').read())"
    done = subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True, text=True)
    (kibibytes,) = re.findall(r"^VmHWM:\s*(\d+) kB$", done.stdout, re.MULTILINE)
    return int(kibibytes) / 2**20


def ours(annotations: Path, detections: Path) -> list[float]:
    metrics = evaluate(annotations, detections)
    return [metrics[name] for name in COCO_STATS]


def is_installed(peer: str) -> bool:
    return importlib.util.find_spec(PEERS[peer][0].split(".")[0]) is not None


def with_peer(peer: str, annotations: Path, detections: Path) -> list[float]:
    of_coco, of_evaluation, name = PEERS[peer]
    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth = importlib.import_module(of_coco).COCO(str(annotations))
        found = ground_truth.loadRes(str(detections))
        coco_eval = getattr(importlib.import_module(of_evaluation), name)(ground_truth, found, "bbox")
        coco_eval.evaluate()
        coco_eval.accumulate()
        coco_eval.summarize()
    return np.asarray(coco_eval.stats)[: len(COCO_STATS)].tolist()


def write_files(folder: Path, num_images: int = NUM_IMAGES) -> tuple[Path, Path]:
    """Annotations and results: objects of a few classes an image, half of the detections upon objects."""
    rng = np.random.default_rng(0)
    frequencies = 1 / np.arange(1, NUM_CLASSES + 1)
    frequencies /= frequencies.sum()
    objects: list[dict] = []
    results: list[dict] = []
    for image_id in range(1, num_images + 1):
        count = rng.geometric(1 / OBJECTS)
        classes = rng.choice(NUM_CLASSES, 3, p=frequencies, replace=False)
        labels = rng.choice(classes, count)
        boxes = _random_boxes(rng, count)
        for box, label, crowd in zip(boxes.tolist(), labels.tolist(), (rng.random(count) < 0.01).tolist(), strict=True):
            place = {"id": len(objects) + 1, "image_id": image_id, "category_id": label + 1}
            objects.append(place | {"bbox": box, "area": 0.6 * box[2] * box[3], "iscrowd": int(crowd)})
        source, near = rng.integers(0, count, DETECTIONS), rng.random(DETECTIONS) < 0.5
        jitter = rng.normal(0, 0.12, (DETECTIONS, 4))
        moved = boxes[source, :2] + jitter[:, :2] * boxes[source, 2:]
        upon = np.concatenate([moved, boxes[source, 2:] * np.exp(jitter[:, 2:])], axis=1)
        found = np.where(near[:, None], upon, _random_boxes(rng, DETECTIONS))
        found_labels = np.where(near, labels[source], rng.choice(NUM_CLASSES, DETECTIONS, p=frequencies))
        scores = (0.6 * rng.beta(1, 6, DETECTIONS) + 0.4 * near * rng.random(DETECTIONS)).round(4)
        rows = zip(found.round(2).tolist(), found_labels.tolist(), scores.tolist(), strict=True)
        results += [{"image_id": image_id, "category_id": c + 1, "bbox": b, "score": s} for b, c, s in rows]
    document = {
        "images": [{"id": i, "width": WIDTH, "height": HEIGHT} for i in range(1, num_images + 1)],
        "categories": [{"id": c, "name": f"class {c}"} for c in range(1, NUM_CLASSES + 1)],
        "annotations": objects,
    }
    paths = folder / "annotations.json", folder / "results.json"
    for path, content in zip(paths, (document, results), strict=True):
        path.write_text(json.dumps(content))
    return paths


def _random_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    """(count, 4) x, y, width, height inside the image; a third each of COCO's sizes, roughly."""
    sides = np.exp(rng.normal(4.2, 0.9, (count, 2))).clip(4, HEIGHT - 40)
    return np.concatenate([rng.random((count, 2)) * (np.array([WIDTH, HEIGHT]) - sides), sides], axis=1)
