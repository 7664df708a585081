"""Figure 1 of the paper, recomputed with this project's losses and evaluation, beside the published numbers."""

import contextlib
import io

import numpy as np
import torch
from matplotlib.figure import Figure
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor
from torch.nn.functional import binary_cross_entropy

from data.boxes import to_xywh
from losses import alrp_loss, ap_loss
from losses.alrp import localisation_errors
from losses.overlaps import paired_iou

SCORES = torch.tensor([1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
POSITIVES = [0, 2, 5, 9]
NUM_OBJECTS = 5  # no anchor finds the fifth
IOUS = {"C & R1": [0.95, 0.80, 0.65, 0.50], "C & R2": [0.80, 0.65, 0.50, 0.95], "C & R3": [0.50, 0.65, 0.80, 0.95]}
AP_IOUS = (0.50, 0.65, 0.80, 0.95)
DELTA = 0.01  # below every difference of two scores: the hard step of the figure
ROUNDING = 0.005 + 1e-6  # an IoU loss of 0.275 is published as 0.28
SIDE = 100.0  # of every object, pixels

COLUMNS = ("AP50", "AP65", "AP80", "AP95", "AP", "cross entropy", "AP Loss", "L1", "IoU loss", "aLRP")
PUBLISHED = {
    "C & R1": (0.51, 0.43, 0.33, 0.20, 0.37, 0.87, 0.36, 0.29, 0.28, 0.53),
    "C & R2": (0.51, 0.39, 0.24, 0.02, 0.29, 0.87, 0.36, 0.29, 0.28, 0.69),
    "C & R3": (0.51, 0.19, 0.08, 0.02, 0.20, 0.87, 0.36, 0.29, 0.28, 0.89),
}


def recompute_table() -> dict[str, dict[str, float]]:
    """Detector to column to value."""
    return {name: recompute(ious) for name, ious in IOUS.items()}


def differences(table: dict[str, dict[str, float]]) -> list[str]:
    """Differences from the published numbers beyond their rounding."""
    return [
        f"{name}: {column} is {row[column]:.4f}, published {published:.2f}"
        for name, row in table.items()
        for column, published in zip(COLUMNS, PUBLISHED[name], strict=True)
        if column in row and abs(row[column] - published) > ROUNDING
    ]


def recompute(ious: list[float]) -> dict[str, float]:
    """Column to value, for one detector: what its positives overlap their objects by."""
    targets = torch.zeros(len(SCORES))
    targets[POSITIVES] = 1
    gt_boxes, pred_boxes = boxes_with(ious)
    average_precision = average_precisions(gt_boxes, pred_boxes)
    loc_errors = localisation_errors(paired_iou(pred_boxes[POSITIVES], gt_boxes[: len(ious)]), "iou")
    classification, localisation = alrp_loss(SCORES, targets, loc_errors, delta=DELTA)
    return dict(zip(COLUMNS, average_precision, strict=False)) | {
        "AP": float(np.mean(average_precision)),
        "cross entropy": binary_cross_entropy(SCORES, targets).item(),
        "AP Loss": ap_loss(SCORES, targets, delta=DELTA).item(),
        "IoU loss": (1 - paired_iou(pred_boxes[POSITIVES], gt_boxes[: len(ious)])).mean().item(),
        "aLRP": (classification + localisation).item(),
    }


def boxes_with(ious: list[float]) -> tuple[Tensor, Tensor]:
    """Five objects in a row, and ten detections: the positives cover their share of an object each, the rest none."""
    left = 2 * SIDE * torch.arange(NUM_OBJECTS + len(SCORES))
    boxes = torch.stack([left, 0 * left, left + SIDE, 0 * left + SIDE], dim=1)
    gt_boxes, pred_boxes = boxes[:NUM_OBJECTS], boxes[NUM_OBJECTS:]
    pred_boxes[POSITIVES] = gt_boxes[: len(ious)]
    pred_boxes[POSITIVES, 3] = SIDE * torch.tensor(ious)  # that share of the height is the IoU
    return gt_boxes, pred_boxes


def average_precisions(gt_boxes: Tensor, pred_boxes: Tensor) -> list[float]:
    """AP at each of AP_IOUS by COCO's matching, as the exact area under the interpolated curve."""
    coco_gt, coco_dt = COCO(), COCO()
    for coco, boxes in ((coco_gt, gt_boxes), (coco_dt, pred_boxes)):
        annotations = [
            {"id": i, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": 1.0}
            | {"bbox": [*to_xywh(*box)], "score": score}
            for i, (box, score) in enumerate(zip(boxes.tolist(), SCORES.tolist(), strict=False), start=1)
        ]
        coco.dataset = {"images": [{"id": 1}], "categories": [{"id": 1}], "annotations": annotations}
    with contextlib.redirect_stdout(io.StringIO()):
        coco_gt.createIndex()
        coco_dt.createIndex()
        coco_eval = COCOeval(coco_gt, coco_dt, "bbox")
        # midpoints of 1000 equal steps of recall: exact for steps of a fifth, where COCO's 101 points are not
        coco_eval.params.recThrs = (np.arange(1000) + 0.5) / 1000
        coco_eval.params.iouThrs = np.array(AP_IOUS)
        coco_eval.params.areaRng, coco_eval.params.areaRngLbl = [[0, 1e10]], ["all"]
        coco_eval.evaluate()
        coco_eval.accumulate()
    return coco_eval.eval["precision"][:, :, 0, 0, -1].mean(axis=1).tolist()


def format_table(table: dict[str, dict[str, float]]) -> str:
    widths = [max(len(column), 4) + 2 for column in COLUMNS]
    lines = [" " * 19 + "".join(f"{column:>{width}}" for column, width in zip(COLUMNS, widths, strict=True))]
    for name, row in table.items():
        published = dict(zip(COLUMNS, PUBLISHED[name], strict=True))
        for left, values in ((f"{name}  recomputed ", row), (f"{'':<6}  published  ", published)):
            cells = [f"{values[column] + 1e-6:.2f}" if column in values else "-" for column in COLUMNS]
            lines.append(left + "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)))
    return "\n".join(lines)


def draw(table: dict[str, dict[str, float]]) -> Figure:
    """The three outputs, anchor by anchor, and what each measure says of them."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    anchors, measures = figure.subplots(1, 2, width_ratios=(1, 1.5))
    shown = ("AP", "cross entropy", "AP Loss", "IoU loss", "aLRP")
    for i, (name, row) in enumerate(table.items()):
        colour, offset = f"C{i}", (i - 1) * 0.27
        anchors.plot(np.array(POSITIVES) + 1, IOUS[name], "o-", color=colour, label=name)
        heights = [row[column] + 1e-6 for column in shown]  # rounded as in the table
        bars = measures.bar(np.arange(len(shown)) + offset, heights, 0.25, color=colour)
        measures.bar_label(bars, fmt="%.2f", fontsize=8)
    negatives = [i + 1 for i in range(len(SCORES)) if i not in POSITIVES]
    anchors.plot(negatives, [0.42] * len(negatives), "x", color="grey", label="negatives")
    anchors.set_xticks(range(1, len(SCORES) + 1), [f"{score:.1f}" for score in SCORES.tolist()])
    anchors.set(xlabel="score of the anchor (classification C)", ylabel="IoU of the positives", ylim=(0.38, 1))
    anchors.legend(loc="upper center", fontsize=8)
    measures.set_xticks(range(len(shown)), shown)
    measures.set(ylim=(0, 1.05), title="Only AP and aLRP tell the three apart")
    anchors.set_title("Same scores, other boxes")
    for axes in (anchors, measures):
        axes.spines[["top", "right"]].set_visible(False)
    return figure
