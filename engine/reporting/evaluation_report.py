"""The folder that `eval.py --report` writes: index.html and the same figures and examples as PNG files."""

import copy
import io
import os
from collections.abc import Iterable
from pathlib import Path

import torch
import yaml
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from data import CocoDetection
from data.boxes import to_xyxy
from data.files import write_atomically
from data.output_folder import OutputFolder
from data.transforms import resize
from engine.evaluation.evaluator import Evaluation
from engine.reporting.analysis import Analysis, analyse
from engine.reporting.drawing import draw_detections, side_by_side
from engine.reporting.figures import confusion_figure, figure_png, lrp_figure, per_class_figure, precision_recall_figure
from engine.reporting.html_report import Example, render_page
from engine.run.config import Config

PAGE = "index.html"
NUM_EXAMPLES = 4  # best images, and as many of the worst
LONG_SIDE = 640  # pixels of an example


def check_report_folder(folder: str | Path, inputs: Iterable[str | Path]) -> None:
    """Refuses a folder in which a report would replace a file of another origin, or an input. Raises OutputError."""
    OutputFolder(folder).check(_all_files(), inputs)


def write_report(
    folder: str | Path,
    title: str,
    facts: list[str],
    evaluation: Evaluation,
    dataset: CocoDetection,
    config: Config,
    inputs: Iterable[str | Path] = (),
) -> Path:
    """Writes an evaluation as a page and PNG files; those of an earlier report in the folder are replaced.

    Args:
        title, facts: heading of the page, and what the line below it says.
        evaluation: of `dataset`, which has annotations; the main process's.
        inputs: files that are not replaced whatever is known of the folder.
    Returns:
        path of index.html, which needs none of the other files.
    Raises:
        OSError: the folder cannot be written.
        OutputError: as of `check_report_folder`; nothing is written then.
        DatasetError: an image that was read before cannot be read now.
    """
    assert evaluation.matches is not None and evaluation.metrics is not None
    analysis = analyse(evaluation.matches)
    pictures = {"per_class": figure_png(per_class_figure(analysis))}
    if analysis.budget is not None:
        pictures["precision_recall"] = figure_png(precision_recall_figure(analysis))
        pictures["lrp"] = figure_png(lrp_figure(analysis))
        pictures["confusion"] = figure_png(confusion_figure(*analysis.most_confused()))
    examples: dict[str, list[Example]] = {}
    for heading, image_ids in _best_and_worst(analysis):
        group = examples[f"{heading.capitalize()} images, by their LRP"] = []
        for rank, image_id in enumerate(image_ids, start=1):
            example, both = _example(image_id, analysis, evaluation, dataset)
            group.append(example)
            pictures[f"{heading}_{rank}"] = _png(both)
    text = yaml.safe_dump(config.to_dict(), sort_keys=False)
    page = Path(folder) / PAGE
    output = OutputFolder(folder)
    output.claim(_all_files(), inputs)
    _write(page, render_page(title, facts, evaluation.metrics, analysis, examples, text).encode())
    for name, picture in pictures.items():
        _write(page.with_name(f"{name}.png"), picture)
    output.discard(set(_all_files()) - {PAGE, *(f"{name}.png" for name in pictures)})
    return page


def _all_files() -> list[str]:
    """Parts that a report may consist of."""
    ranks = range(1, NUM_EXAMPLES + 1)
    examples = [f"{heading}_{rank}" for heading in ("best", "worst") for rank in ranks]
    return [PAGE, *(f"{name}.png" for name in ("per_class", "precision_recall", "lrp", "confusion", *examples))]


def _best_and_worst(analysis: Analysis) -> tuple[tuple[str, list[int]], tuple[str, list[int]]]:
    """No image is in both."""
    ranked = analysis.ranked_images()
    num_worst = min(NUM_EXAMPLES, len(ranked) // 2)
    num_best = min(NUM_EXAMPLES, len(ranked) - num_worst)
    return ("best", ranked[:num_best]), ("worst", ranked[::-1][:num_worst])


def _example(
    image_id: int, analysis: Analysis, evaluation: Evaluation, dataset: CocoDetection
) -> tuple[Example, Tensor]:
    """The image with its ground truth and with the detections at the operating point, and a picture of both."""
    in_file_pixels = copy.copy(dataset)
    in_file_pixels.transform = None
    index = dataset.image_ids.tolist().index(image_id)
    image, target = in_file_pixels[index]
    scale = LONG_SIDE / max(target["orig_size"])
    size = tuple(max(1, round(side * scale)) for side in target["orig_size"])
    found = _kept_detections(image_id, evaluation, dataset)
    _, found = resize(image, found, size)
    image, target = resize(image, target, size)
    errors = analysis.images[image_id]
    file_name = os.path.relpath(dataset.path(index), dataset.folder)
    example = Example(
        caption=f"{file_name} (id {image_id}): LRP {errors.lrp:.3f}, {errors.tp} right, {errors.fp} false, "
        f"{errors.fn} missed",
        truth=draw_detections(image, target["boxes"], target["labels"], None, dataset.class_names, target["crowd"]),
        detections=draw_detections(image, found["boxes"], found["labels"], found["scores"], dataset.class_names),
    )
    return example, side_by_side(image, target, found, dataset.class_names)


def _kept_detections(image_id: int, evaluation: Evaluation, dataset: CocoDetection) -> dict[str, Tensor]:
    """Detections that reach the LRP-optimal threshold of their class; none of a class without one, as LRP counts it."""
    assert evaluation.thresholds is not None
    kept = []
    for detection in evaluation.detections:
        if detection["image_id"] != image_id:
            continue
        label = dataset.category_ids.index(detection["category_id"])
        threshold = evaluation.thresholds[label]
        if threshold is not None and detection["score"] >= threshold:
            kept.append((to_xyxy(*detection["bbox"]), label, detection["score"]))
    boxes, labels, scores = zip(*kept, strict=True) if kept else ([], [], [])
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
        "scores": torch.tensor(scores, dtype=torch.float64),
    }


def _png(picture: Tensor) -> bytes:
    buffer = io.BytesIO()
    to_pil_image(picture).save(buffer, "PNG")
    return buffer.getvalue()


def _write(path: Path, content: bytes) -> None:
    write_atomically(path, lambda file: file.write(content))
