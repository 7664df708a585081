"""Released Faster R-CNNs: the authors' (MMDetection v2) and torchvision's, told apart by names and shapes alone."""

import re
from typing import Any

from detector.released import (
    COCO_IDS,
    TORCHVISION_NAMES,
    Released,
    ReleasedError,
    Rename,
    named_tensors,
    renamed,
    replace_frozen_batchnorm,
    require_coco_columns,
    rows_of,
)

STARTS: dict[str, dict[str, Any]] = {
    "torchvision/fasterrcnn_resnet50_fpn": {
        "backbone": "resnet50",
        "deformable": False,
        "norm": "frozen_batch",
        "fpn_channels": 256,
        "fc_channels": 1024,
        "anchor_ratios": (0.5, 1.0, 2.0),
        "anchor_octave_scales": (1.0,),
        "anchor_base_scale": 8.0,
        "box_convention": "torchvision",
    }
}
BLOCKS = 6  # of the third stage of ResNet-50, the only backbone that either released

ALRP_NAMES: list[Rename] = [
    (r"neck\.lateral_convs\.(\d)\.conv\.(.+)", r"fpn.lateral_convs.\1.\2"),
    (r"neck\.fpn_convs\.(\d)\.conv\.(.+)", r"fpn.output_convs.\1.\2"),
    (r"rpn_head\.rpn_conv\.(.+)", r"head.conv.\1"),
    (r"rpn_head\.rpn_cls\.(.+)", r"head.logits.\1"),
    (r"rpn_head\.rpn_reg\.(.+)", r"head.box_deltas.\1"),
    (r"roi_head\.bbox_head\.shared_fcs\.(\d)\.(.+)", lambda m: f"roi_head.fc{int(m[1]) + 1}.{m[2]}"),
    (r"roi_head\.bbox_head\.fc_cls\.(.+)", r"roi_head.cls_logits.\1"),
    (r"roi_head\.bbox_head\.fc_reg\.(.+)", r"roi_head.box_deltas.\1"),
]
FASTER_RCNN_NAMES: list[Rename] = [
    *TORCHVISION_NAMES,
    # up to torchvision 0.12, of which the released weights are, there was no ".0.0" in the first head either
    (r"rpn\.head\.conv\.(?:0\.0\.)?(weight|bias)", r"head.conv.\1"),
    (r"rpn\.head\.cls_logits\.(.+)", r"head.logits.\1"),
    (r"rpn\.head\.bbox_pred\.(.+)", r"head.box_deltas.\1"),
    (r"roi_heads\.box_head\.fc6\.(.+)", r"roi_head.fc1.\1"),
    (r"roi_heads\.box_head\.fc7\.(.+)", r"roi_head.fc2.\1"),
    (r"roi_heads\.box_predictor\.cls_score\.(.+)", r"roi_head.cls_logits.\1"),
    (r"roi_heads\.box_predictor\.bbox_pred\.(.+)", r"roi_head.box_deltas.\1"),
]


def from_alrp(state: object) -> Released:
    """The weights of any of the authors' three Faster R-CNN rows; their two baselines differ in nothing here.

    Raises:
        ReleasedError: tensors of another model, or of a network that no shipped config has.
    """
    theirs = named_tensors(state)
    logits, deltas = (rows_of(theirs, f"roi_head.bbox_head.fc_{kind}.weight", axes=2) for kind in ("cls", "reg"))
    num_classes = deltas // 4
    depth = sum(bool(re.fullmatch(r"backbone\.layer3\.\d+\.conv1\.weight", name)) for name in theirs)
    if depth != BLOCKS or logits - num_classes not in (0, 1):
        raise ReleasedError(
            f"no released Faster R-CNN has {depth} blocks in layer3, {logits} class rows and boxes of {num_classes} "
            "classes; expected a checkpoint of one of the rows in docs/models.md"
        )
    config = "r50_faster_rcnn" if logits > num_classes else "r50_faster_rcnn_alrp"
    return Released(renamed(theirs, ALRP_NAMES), config, num_classes)


def from_torchvision(state: object) -> Released:
    """The weights of torchvision's fasterrcnn_resnet50_fpn with COCO's classes.

    Of the 91 class rows the 80 that COCO uses are kept, and background, which is the first there and the last here.
    BatchNorm without batch counters is torchvision's frozen one, which its weights expect with ε 0: ours has ε 1e-5, so
    the difference goes into its weight.

    Raises:
        ReleasedError: tensors of another model, or of other classes.
    """
    theirs = named_tensors(state)
    rows = rows_of(theirs, "roi_heads.box_predictor.cls_score.weight", axes=2)
    require_coco_columns(rows)
    weights = renamed(theirs, FASTER_RCNN_NAMES)
    for kind in ("weight", "bias"):
        logits, deltas = (weights.get(f"roi_head.{name}.{kind}") for name in ("cls_logits", "box_deltas"))
        if logits is not None and len(logits) == rows:
            weights[f"roi_head.cls_logits.{kind}"] = logits[[*COCO_IDS, 0]]
        if deltas is not None and len(deltas) == 4 * rows:
            own = deltas.view(rows, 4, *deltas.shape[1:])[COCO_IDS]
            weights[f"roi_head.box_deltas.{kind}"] = own.flatten(0, 1)
    replace_frozen_batchnorm(weights, eps=0.0)
    return Released(weights, "torchvision_r50_faster_rcnn", len(COCO_IDS))
