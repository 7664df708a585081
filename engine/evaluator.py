"""A detector over a data set: detections in the files' own pixels, metrics, and pictures."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from data import CocoDetection, eval_loader, to_original
from engine.coco_metrics import evaluate_detections
from engine.config import Config
from engine.distributed import Processes
from engine.drawing import side_by_side
from engine.progress import progress


@dataclass
class Evaluation:
    """What one pass over a split gives; the same on every process but for `examples`, which the main one has.

    Attributes:
        detections: COCO results, by image and within an image best first.
        metrics: names of `evaluate_detections`; None where the split has no annotations.
        thresholds: LRP-optimal score per class in label order, None for a class without true positives.
        examples: (3, H, W) uint8 pictures, ground truth left, detections above the threshold right.
    """

    detections: list[dict[str, Any]]
    metrics: dict[str, Any] | None = None
    thresholds: list[float | None] | None = None
    examples: list[Tensor] = field(default_factory=list)


def evaluate(
    detector: nn.Module, dataset: CocoDetection, config: Config, processes: Processes, num_examples: int = 0
) -> Evaluation:
    """Detects on every image of `dataset` once, whatever the number of processes, and computes AP, AR and oLRP.

    In float32, whatever training runs in: bfloat16 has so few distinct scores that ties cost AP. Leaves the detector
    in eval mode.
    """
    loader = eval_loader(
        dataset,
        config.evaluation.batch_size,
        workers=config.data.workers,
        rank=processes.rank,
        world_size=processes.world_size,
    )
    kept: list[tuple[Tensor, dict[str, Any], dict[str, Tensor]]] = []
    results: list[dict[str, Any]] = []
    with progress(total=len(loader), desc="evaluate", unit="batch", disable=not processes.is_main, leave=False) as bar:
        for images, targets, detections in _detect(detector, loader, processes):
            for image, target, found in zip(images, targets, detections, strict=True):
                results.extend(_coco_results(found, target, dataset.category_ids))
                if processes.is_main and len(kept) < num_examples:
                    height, width = target["size"]
                    kept.append((image[:, :height, :width], target, found))
            bar.update()
    parts = processes.gather(results)
    results = [result for part in parts for result in part]
    results.sort(key=lambda result: result["image_id"])  # stable: within an image best first, for any world size
    evaluation = Evaluation(results)
    if not dataset.has_annotations:
        return evaluation
    if processes.is_main:
        evaluation.metrics = evaluate_detections(
            dataset.ground_truth,
            results,
            category_ids=dataset.category_ids,
            image_ids=dataset.image_ids.tolist(),
        )
    evaluation.metrics = processes.from_main(evaluation.metrics)
    per_class = evaluation.metrics["per_class"]
    evaluation.thresholds = [per_class[name]["lrp_threshold"] for name in dataset.class_names]
    evaluation.examples = [_picture(*example, evaluation.thresholds, dataset.class_names) for example in kept]
    return evaluation


@torch.inference_mode()
def _detect(
    detector: nn.Module, loader: Iterable, processes: Processes
) -> Iterable[tuple[Tensor, list[dict[str, Any]], list[dict[str, Tensor]]]]:
    detector.eval()
    for images, targets in loader:
        device_images = images.to(processes.device, non_blocking=True).float().div_(255)
        device_images = device_images.contiguous(memory_format=torch.channels_last)
        detections = detector(device_images, image_sizes=[target["size"] for target in targets])
        yield images, targets, [{name: value.cpu() for name, value in found.items()} for found in detections]


def _coco_results(found: dict[str, Tensor], target: dict[str, Any], category_ids: list[int]) -> list[dict[str, Any]]:
    boxes = to_original(found["boxes"], target["size"], target["orig_size"])
    boxes[:, 2:] -= boxes[:, :2]  # COCO: x, y, width, height
    rows = zip(boxes.tolist(), found["scores"].tolist(), found["labels"].tolist(), strict=True)
    return [
        {"image_id": target["image_id"], "category_id": category_ids[label], "bbox": box, "score": score}
        for box, score, label in rows
    ]


def _picture(
    image: Tensor,
    target: dict[str, Any],
    found: dict[str, Tensor],
    thresholds: list[float | None],
    class_names: list[str],
) -> Tensor:
    """Detections at the operating point that LRP calls the best; a class without one shows nothing."""
    limits = torch.tensor([2.0 if threshold is None else threshold for threshold in thresholds])
    shown = found["scores"] >= limits[found["labels"]]
    return side_by_side(image, target, {name: value[shown] for name, value in found.items()}, class_names)
