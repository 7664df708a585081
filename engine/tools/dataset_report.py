"""A checked data set as text for a terminal and as a picture."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from data.coco import IMAGE_REMEDY
from data.counts import counted
from data.files import write_atomically
from data.transforms import Resizing
from detector import ModelConfig, build_references
from detector.contract import SIZE_DIVISOR
from engine.metrics.matching import SIZES
from engine.reporting.fonts import drawable, families
from engine.run.stretch import described
from engine.tools.dataset_check import EXAMPLES, SplitReport
from losses.overlaps import box_area

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_CLASSES = 40  # bars that stay readable
MIN_SIDE = 4  # pixels, where the axis of sizes begins


def format_split(name: str, report: SplitReport, resize: Resizing) -> str:
    """Problems with counts, sizes, classes and anchors, and the metrics that will be -1; no final newline.

    Args:
        resize: the resizing of training images.
    """
    objects = sum(row["objects"] for row in report.classes.values())
    crowd = sum(row["crowd"] for row in report.classes.values())
    title = f"{name}: {counted(report.num_images, 'image')} ({report.num_empty} without objects), "
    title += counted(round(objects), "object")
    title += f", {counted(round(crowd), 'crowd region')}" if crowd else ""
    lines = [title, "=" * len(title), ""]
    count = sum(map(len, report.problems.values()))
    lines.append(f"Problems: {count}" if count else "No problems.")
    for kind, messages in report.problems.items():
        lines.append(f"  {len(messages):>6} {kind}")
        lines += [f"           {message}" for message in messages[:EXAMPLES]]
    if any(kind.startswith("image files") for kind in report.problems):
        lines.append(f"Remedy: {IMAGE_REMEDY}")
    lines += [f"Note: {note}" for note in report.notes]
    if objects:
        lines += ["", f"{'objects of COCO size':<42}{'small':>8}{'medium':>8}{'large':>8}"]
        for label, sides in (("in the files", report.sides), (f"resized to {described(resize)}", report.resized_sides)):
            shares = [np.mean((sides**2 >= low) & (sides**2 < high)) for low, high in SIZES.values()]
            lines.append(f"  {label:<40}" + "".join(f"{share:>8.1%}" for share in shares))
        columns = f"{'images':>8}{'objects':>9}{'crowd':>7}{'anchors each':>14}{'without':>9}{'IoU < ½':>9}"
        lines += ["", f"{'class':<24}{columns}"]
        for class_name, row in report.classes.items():
            lines.append(
                f"  {class_name[:21]:<22}{row['images']:>8.0f}{row['objects']:>9.0f}{row['crowd']:>7.0f}"
                f"{row['positives']:>14.1f}{row['unmatched']:>9.1%}{row['unreached']:>9.1%}"
            )
        if any(row["positives"] or row["unreached"] for row in report.classes.values()):  # there are anchors
            unreached = sum(row["objects"] * row["unreached"] for row in report.classes.values()) / objects
            lines.append(f"No anchor has an IoU of ½ or more with {unreached:.1%} of the objects.")
    if report.undefined:
        lines += ["", "Metrics on this split that will be -1:"]
        lines += [f"  {metrics}: {reason}" for metrics, reason in report.undefined.items()]
    return "\n".join(lines)


def draw_report(path: Path, reports: dict[str, SplitReport], model: ModelConfig) -> None:
    """PNG with the size of objects beside the anchors', objects per class, and the anchors that they get."""
    from matplotlib import rc_context  # imported late: it takes a second

    with rc_context({"text.parse_math": False, "font.family": families(tuple(next(iter(reports.values())).classes))}):
        figure = _figure(reports, model)
        write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=110))


def _figure(reports: dict[str, SplitReport], model: ModelConfig) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.2), layout="constrained")
    by_size, by_class, by_anchors = figure.subplots(1, 3)
    anchor_sizes = _reference_sizes(model)
    largest = max([MIN_SIDE, *anchor_sizes, *(report.resized_sides.max(initial=1) for report in reports.values())])
    bins = np.geomspace(MIN_SIDE, 2 * largest, 40)
    for size in anchor_sizes:
        by_size.axvline(size, color="0.8", linewidth=1, zorder=0)
    first = next(iter(reports.values()))
    classes = sorted(first.classes, key=lambda name: -first.classes[name]["objects"])[:MOST_CLASSES]
    height = 0.8 / len(reports)
    for index, (name, report) in enumerate(reports.items()):
        sides = report.resized_sides
        by_size.hist(sides, bins, weights=np.full(len(sides), 1 / max(1, len(sides))), histtype="step", label=name)
        rows = np.arange(len(classes)) + index * height
        table = [report.classes.get(class_name, {}) for class_name in classes]
        by_class.barh(rows, [row.get("objects", 0) for row in table], height, label=name)
        by_anchors.barh(rows, [row.get("positives", 0) for row in table], height, label=name)
    by_size.set(xscale="log", xlabel="√area in pixels, as training resizes it", ylabel="share of objects")
    by_size.set_title("Object sizes; grey: anchor sizes", fontsize=10)
    by_class.set(xlabel="objects", xscale="symlog")
    by_class.set_title("Objects per class", fontsize=10)
    by_anchors.set(xlabel="mean number")
    by_anchors.set_title("Positive anchors per object", fontsize=10)
    places = {name: place for place, name in enumerate(first.classes, start=1)}  # as `class_caption` counts
    names = [drawable(name, f"class {places[name]}") for name in classes]
    for axes in (by_class, by_anchors):
        axes.set_yticks(np.arange(len(classes)) + 0.4 - height / 2, names, fontsize=8 if len(classes) < 20 else 5)
        axes.invert_yaxis()
    by_size.legend()
    return figure


def _reference_sizes(model: ModelConfig) -> list[float]:
    """√area in pixels of the boxes that a detector starts from, each once; none for a detector without such."""
    references = build_references(model)
    if references is None:
        return []
    boxes = torch.cat(references.boxes((SIZE_DIVISOR, SIZE_DIVISOR)))  # every level has a cell at any size
    return box_area(boxes).sqrt().round(decimals=2).unique().tolist()
