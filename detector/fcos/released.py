"""Released FCOS: torchvision's."""

from typing import Any

import torch

from detector.released import (
    BATCHNORM_EPS,
    COCO_IDS,
    TORCHVISION_NAMES,
    OtherFamilyError,
    Released,
    Rename,
    keep_coco_columns,
    named_tensors,
    renamed,
    replace_frozen_batchnorm,
    require_coco_columns,
    rows_of,
)

NUM_LEVELS = 5
STARTS: dict[str, dict[str, Any]] = {
    "torchvision/fcos_resnet50_fpn": {
        "backbone": "resnet50",
        "deformable": False,
        "norm": "frozen_batch",
        "fpn_channels": 256,
        "head_convs": 4,
        "p6_from": "p5",
        "p7_relu": True,
        "centerness": "box",
        "distances": "relu",
        "conventions": "torchvision",
    }
}
NAMES: list[Rename] = [
    *TORCHVISION_NAMES,
    (r"head\.classification_head\.conv\.(.+)", r"head.cls_tower.\1"),
    (r"head\.regression_head\.conv\.(.+)", r"head.box_tower.\1"),
    (r"head\.regression_head\.bbox_reg\.(.+)", r"head.distances.\1"),
    (r"head\.regression_head\.bbox_ctrness\.(.+)", r"head.centerness.\1"),
]


def from_torchvision(state: object) -> Released:
    """The weights of torchvision's fcos_resnet50_fpn with COCO's classes.

    Of the 91 class columns the 80 that COCO uses are kept. Its levels have no factors of their own: ours are 1.
    BatchNorm without batch counters is torchvision's frozen one, which has the usual ε here.

    Raises:
        ReleasedError: tensors of another model, or of other classes.
    """
    theirs = named_tensors(state)
    if "head.regression_head.bbox_ctrness.weight" not in theirs:
        raise OtherFamilyError("has no branch for centreness, as torchvision's FCOS has")
    require_coco_columns(rows_of(theirs, "head.classification_head.cls_logits.weight"))
    weights = renamed(theirs, NAMES) | {"head.level_scales": torch.ones(NUM_LEVELS)}
    keep_coco_columns(weights, num_anchors=1)
    replace_frozen_batchnorm(weights, eps=BATCHNORM_EPS)
    return Released(weights, "torchvision_fcos_r50", len(COCO_IDS))
