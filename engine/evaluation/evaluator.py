"""A detector over a data set: detections in the files' own pixels, metrics, and examples."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from data import CocoDetection, eval_loader
from data.boxes import mirror_boxes, scale_boxes, to_xywh
from engine.evaluation.tta import NMS_THRESH, merge, mirror_images, views
from engine.metrics.coco_metrics import match_detections, metrics_of
from engine.metrics.matching import Matches
from engine.run.config import Config
from engine.run.distributed import Processes
from engine.run.images import to_network
from engine.run.loading import loader_errors, wait_for_each
from engine.run.precision import autocast
from engine.run.progress import progress


class Example(NamedTuple):
    """An image as the detector saw it, on the CPU.

    Attributes:
        image: (3, H, W) uint8, without padding.
        target: as of CocoDetection, in its pixels.
        detections: all of them: "boxes" (n, 4) xyxy in its pixels, "labels" and "scores" (n,).
    """

    image: Tensor
    target: dict[str, Any]
    detections: dict[str, Tensor]


@dataclass
class Evaluation:
    """Results of one pass over a split; only the main process has `examples` and `matches`, all have the rest.

    Attributes:
        detections: COCO results, by image and within an image best first.
        metrics: names of `evaluate_detections`; None where the split has no annotations.
        thresholds: LRP-optimal score per class in label order, None for a class without true positives.
        matches: `detections` matched to the annotations (see `match_detections`).
        examples: the first images of the main process's batches, of which the largest come first; where the split has
            annotations.
    """

    detections: list[dict[str, Any]]
    metrics: dict[str, Any] | None = None
    thresholds: list[float | None] | None = None
    matches: Matches | None = None
    examples: list[Example] = field(default_factory=list)


@loader_errors()
def evaluate(
    detector: nn.Module, dataset: CocoDetection, config: Config, processes: Processes, num_examples: int = 0
) -> Evaluation:
    """Detects on every image of `dataset` once, whatever the number of processes, and computes AP, AR and oLRP.

    In `evaluation.precision`, whatever training runs in. Leaves the detector in eval mode. With test-time augmentation
    the examples have the first view's detections.
    """
    all_views = views(dataset, config.evaluation)
    loaders = [_loader(view.dataset, config, processes) for view in all_views]
    total = sum(map(len, loaders))
    kept: list[Example] = []
    pending: list[Future[list[dict[str, Any]]]] = []
    with (
        progress(total=total, desc="evaluate", unit="batch", disable=not processes.is_main, leave=False) as bar,
        ThreadPoolExecutor(1) as converter,  # of one batch while the detector is at the next; processes load a third
    ):
        for view in all_views:
            loader = loaders.pop(0)  # whose processes then end with it
            for images, targets, detections in _detect(detector, loader, config, processes, view.flip):
                pending.append(converter.submit(_coco_results, detections, targets, dataset.category_ids))
                if processes.is_main and view is all_views[0]:
                    wanted = slice(num_examples - len(kept))
                    kept += map(_example, images[wanted], targets[wanted], detections[wanted])
                bar.update()
    parts = processes.gather([result for batch in pending for result in batch.result()])
    results = [result for part in parts for result in part]
    results.sort(key=lambda result: result["image_id"])  # stable: within an image best first, for any world size
    if len(all_views) > 1:
        nms_thresh = getattr(config.model, "nms_thresh", NMS_THRESH)
        results = merge(results, nms_thresh, config.model.detections_per_img)
    evaluation = Evaluation(results)
    if not dataset.has_annotations:
        return evaluation
    if processes.is_main:
        evaluation.matches = match_on(dataset, results)
        evaluation.metrics = metrics_of(evaluation.matches)
    evaluation.metrics = processes.from_main(evaluation.metrics)
    per_class = evaluation.metrics["per_class"]
    evaluation.thresholds = [per_class[name]["lrp_threshold"] for name in dataset.class_names]
    evaluation.examples = kept
    return evaluation


def match_on(dataset: CocoDetection, detections: Path | Sequence[dict[str, Any]]) -> Matches:
    """Detections, or a results file, matched to the objects of the classes and images that the data set has."""
    return match_detections(
        dataset.ground_truth, detections, category_ids=dataset.category_ids, image_ids=dataset.image_ids.tolist()
    )


def _loader(dataset: CocoDetection, config: Config, processes: Processes) -> DataLoader:
    return eval_loader(
        dataset,
        config.evaluation.batch_size,
        workers=config.data.workers,
        rank=processes.rank,
        world_size=processes.world_size,
        pinned=processes.device.type == "cuda",
    )


@torch.inference_mode()
def _detect(
    detector: nn.Module, loader: DataLoader, config: Config, processes: Processes, flip: bool
) -> Iterator[tuple[Tensor, list[dict[str, Any]], list[dict[str, Tensor]]]]:
    """Batches as the loader has them, with the detections in their pixels, on the detector's device; `flip`: found in
    the mirrored images."""
    detector.eval()
    for images, targets in wait_for_each(loader):
        sizes = [target["size"] for target in targets]
        device_images = to_network(images, processes.device)
        if flip:
            device_images = mirror_images(device_images, sizes)
        with autocast(config.evaluation.precision, processes.device):
            detections = detector(device_images, image_sizes=sizes)
        if flip:
            for found, (_, width) in zip(detections, sizes, strict=True):
                found["boxes"] = mirror_boxes(found["boxes"], width)
        yield images, targets, detections


@torch.inference_mode()
def _coco_results(
    detections: Sequence[dict[str, Tensor]], targets: Sequence[dict[str, Any]], category_ids: list[int]
) -> list[dict[str, Any]]:
    """Detections of a batch, on any device, as COCO results."""
    # one table, as each copy from a GPU waits for it: x1, y1, x2, y2, score, label
    tables = [torch.cat([d["boxes"], d["scores"][:, None], d["labels"][:, None]], dim=1) for d in detections]
    results = []
    for table, target in zip(torch.cat(tables).cpu().split([len(t) for t in tables]), targets, strict=True):
        boxes = scale_boxes(table[:, :4], target["size"], target["orig_size"])
        boxes = torch.stack(to_xywh(*boxes.unbind(1)), dim=1)
        labels = table[:, 5].long().tolist()
        results += [
            {"image_id": target["image_id"], "category_id": category_ids[label], "bbox": box, "score": score}
            for box, score, label in zip(boxes.tolist(), table[:, 4].tolist(), labels, strict=True)
        ]
    return results


def _example(image: Tensor, target: dict[str, Any], found: dict[str, Tensor]) -> Example:
    height, width = target["size"]
    image = image[:, :height, :width].to(torch.uint8)
    return Example(image, target, {name: value.cpu() for name, value in found.items()})
