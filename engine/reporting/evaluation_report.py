"""The folder that `eval.py --report` writes: index.html and the same figures and examples as PNG files."""

import copy
import io
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import yaml
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from data import CocoDetection
from data.boxes import to_xyxy
from data.files import write_atomically
from data.output_folder import OutputFolder
from data.transforms import resize
from engine.evaluation.evaluator import Evaluation
from engine.metrics.matching import Matches
from engine.reporting.analysis import Analysis, Outcome, analyse
from engine.reporting.drawing import (
    FALSE,
    MISSED,
    RIGHT,
    Box,
    Color,
    class_caption,
    draw_boxes,
    draw_detections,
    joined,
)
from engine.reporting.figures import confusion_figure, figure_png, lrp_figure, per_class_figure, precision_recall_figure
from engine.reporting.html_examples import ExamplePictures
from engine.reporting.html_report import render_page
from engine.run.config import Config

PAGE = "index.html"
NUM_EXAMPLES = 4  # best images, and as many of the worst
LONG_SIDE = 960  # pixels of an example: a click shows it so large


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
    verdict: str = "",
) -> Path:
    """Writes an evaluation as a page and PNG files; those of an earlier report in the folder are replaced.

    Args:
        title, facts: heading of the page, and what the line below it says.
        evaluation: of `dataset`, which has annotations; the main process's.
        inputs: files that are not replaced whatever is known of the folder.
        verdict: what training and validation images say of the detector, one line; "" for nothing.
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
    examples: dict[str, list[ExamplePictures]] = {}
    for heading, image_ids in zip(("best", "worst"), analysis.best_and_worst(NUM_EXAMPLES), strict=True):
        group = examples[f"{heading.capitalize()} images, by their LRP"] = []
        for rank, image_id in enumerate(image_ids, start=1):
            example, both = _example(image_id, analysis, evaluation.matches, dataset)
            group.append(example)
            pictures[f"{heading}_{rank}"] = _png(both)
    text = yaml.safe_dump(config.to_dict(), sort_keys=False)
    page = Path(folder) / PAGE
    output = OutputFolder(folder)
    output.claim(_all_files(), inputs)
    html = render_page(title, facts, evaluation.metrics, analysis, examples, text, verdict)
    _write(page, html.encode(errors="backslashreplace"))  # names may hold half of a surrogate pair
    for name, picture in pictures.items():
        _write(page.with_name(f"{name}.png"), picture)
    output.discard(set(_all_files()) - {PAGE, *(f"{name}.png" for name in pictures)})
    return page


def _all_files() -> list[str]:
    """Parts that a report may consist of."""
    ranks = range(1, NUM_EXAMPLES + 1)
    examples = [f"{heading}_{rank}" for heading in ("best", "worst") for rank in ranks]
    return [PAGE, *(f"{name}.png" for name in ("per_class", "precision_recall", "lrp", "confusion", *examples))]


def _example(
    image_id: int, analysis: Analysis, matches: Matches, dataset: CocoDetection
) -> tuple[ExamplePictures, Tensor]:
    """The image with its ground truth, and with what became of it at the operating points; and a picture of both."""
    in_file_pixels = copy.copy(dataset)
    in_file_pixels.transform = None
    index = dataset.image_ids.tolist().index(image_id)
    image, target = in_file_pixels[index]
    scale = LONG_SIDE / max(target["orig_size"])
    size = tuple(max(1, round(side * scale)) for side in target["orig_size"])
    image, target = resize(image, target, size)
    errors = analysis.images[image_id]
    counts = f"{errors.tp} right, {errors.fp} false, {errors.fn} missed"
    file_name = os.path.relpath(dataset.path(index), dataset.folder)
    example = ExamplePictures(
        caption=f"{file_name} (id {image_id}): LRP {errors.lrp:.3f}, {counts}",
        truth=draw_detections(image, target["boxes"], target["labels"], None, dataset.class_names, target["crowd"]),
        detections=draw_boxes(image, _outcome_boxes(analysis.outcomes[image_id], matches, scale)),
    )
    titled = [(f"ground truth: {len(target['boxes'])}", example.truth), (f"detections: {counts}", example.detections)]
    return example, joined(titled)


def _outcome_boxes(outcome: Outcome, matches: Matches, scale: float) -> list[Box]:
    """Missed objects dashed, then false detections, then right ones on top, the best score last."""
    truth, found, names = matches.truth, matches.found, matches.truth.class_names

    def box(xywh: np.ndarray, label: int, before: str, after: str, color: Color, dashed: bool = False) -> Box:
        rectangle = [scale * side for side in to_xyxy(*xywh.tolist())]
        return Box(rectangle, f"{before}{class_caption(names, label)}{after}", color, dashed)

    boxes = [box(truth.boxes[i], int(truth.labels[i]), "missed ", "", MISSED, True) for i in outcome.missed]
    for chosen, before, color in ((outcome.false, "false ", FALSE), (outcome.right, "", RIGHT)):
        for i in sorted(chosen, key=lambda i: found.scores[i]):
            boxes.append(box(found.boxes[i], int(found.labels[i]), before, f" {found.scores[i]:.2f}", color))
    return boxes


def _png(picture: Tensor) -> bytes:
    buffer = io.BytesIO()
    to_pil_image(picture).save(buffer, "PNG")
    return buffer.getvalue()


def _write(path: Path, content: bytes) -> None:
    write_atomically(path, lambda file: file.write(content))
