"""AP and oLRP of a results file of COCO's size: from two JSON files to all metrics, against pycocotools' evaluation."""

import contextlib
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from engine.metrics.coco_metrics import COCO_STATS, evaluate_detections

NUM_IMAGES, NUM_CLASSES, OBJECTS, DETECTIONS = 5000, 80, 7.3, 100  # the last two of an image, on average
WIDTH, HEIGHT = 640, 480
SCRIPT = Path(__file__).resolve().parents[1] / "evaluate_detections.py"


def benchmark_metrics() -> list[dict]:
    """Rows of the table; all of it runs on one core, so that processor time is what an idle machine would take."""
    with tempfile.TemporaryDirectory() as folder:
        files = write_files(Path(folder))
        peer, *peer_times = timed(lambda: with_pycocotools(*files))
        own, *own_times = timed(lambda: ours(*files))
        command: list[str | Path] = [sys.executable, SCRIPT, "--annotations", files[0], "--detections", files[1]]
        _, *script_times = timed(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20  # KiB on Linux
    rows = [
        ("pycocotools: AP", peer_times, None, None),
        ("ours: AP and oLRP", own_times, str(own == peer), None),
        ("scripts/evaluate_detections.py", script_times, None, peak),
    ]
    return [
        {
            "evaluation": name,
            "s": wall,
            "processor s": processor,
            "ratio": processor / peer_times[1],
            "same AP and AR": same,
            "peak GiB": memory,
        }
        for name, (wall, processor), same, memory in rows
    ]


def timed(run: Callable[[], Any]) -> tuple[Any, float, float]:
    """Result, seconds, and seconds of the processor, those of processes that `run` has waited for included."""
    start = time.perf_counter(), sum(os.times()[:4])
    result = run()
    return result, time.perf_counter() - start[0], sum(os.times()[:4]) - start[1]


def ours(annotations: Path, detections: Path) -> list[float]:
    metrics = evaluate_detections(annotations, detections)
    return [metrics[name] for name in COCO_STATS]


def with_pycocotools(annotations: Path, detections: Path) -> list[float]:
    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth = COCO(annotations)
        coco_eval = COCOeval(ground_truth, ground_truth.loadRes(str(detections)), "bbox")
        coco_eval.evaluate()
        coco_eval.accumulate()
        coco_eval.summarize()
    return coco_eval.stats.tolist()


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
