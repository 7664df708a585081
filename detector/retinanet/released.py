"""Released RetinaNets: the authors' (MMDetection v2) and torchvision's, told apart by names and shapes alone."""

import re
from typing import Any

from detector.released import (
    COCO_IDS,
    TORCHVISION_NAMES,
    OtherFamilyError,
    Released,
    ReleasedError,
    Rename,
    groups_of,
    keep_coco_columns,
    named_tensors,
    renamed,
    replace_frozen_batchnorm,
    require_coco_columns,
    rows_of,
)

# The authors' rows: (blocks of the third stage, groups, deformable, anchors per cell) to the config. AP Loss trains
# the first one's network too, so its checkpoints evaluate under that config.
ALRP_CONFIGS = {
    (6, 1, False, 6): "r50_alrp",
    (6, 1, False, 2): "r50_alrp_atss",
    (23, 1, False, 2): "r101_alrp_atss",
    (23, 1, False, 3): "r101_alrp_atss_800",
    (23, 64, False, 2): "x101_alrp_atss",
    (23, 64, False, 3): "x101_alrp_atss_800",
    (23, 64, True, 3): "x101_dcn_alrp_atss_800",
}

# a tower's convolutions alternate with ReLUs here
ALRP_NAMES: list[Rename] = [
    (r"neck\.lateral_convs\.(\d)\.conv\.(.+)", r"fpn.lateral_convs.\1.\2"),
    (r"neck\.fpn_convs\.([012])\.conv\.(.+)", r"fpn.output_convs.\1.\2"),
    (r"neck\.fpn_convs\.3\.conv\.(.+)", r"fpn.p6.\1"),
    (r"neck\.fpn_convs\.4\.conv\.(.+)", r"fpn.p7.\1"),
    (r"bbox_head\.cls_convs\.(\d)\.conv\.(.+)", lambda m: f"head.cls_tower.{2 * int(m[1])}.{m[2]}"),
    (r"bbox_head\.reg_convs\.(\d)\.conv\.(.+)", lambda m: f"head.box_tower.{2 * int(m[1])}.{m[2]}"),
    (r"bbox_head\.retina_cls\.(.+)", r"head.cls_logits.\1"),
    (r"bbox_head\.retina_reg\.(.+)", r"head.box_deltas.\1"),
]
RETINANET_NAMES: list[Rename] = [
    *TORCHVISION_NAMES,
    (r"head\.regression_head\.bbox_reg\.(.+)", r"head.box_deltas.\1"),
    # up to torchvision 0.12, of which the released v1 is, its towers were numbered as ours
    (r"head\.classification_head\.conv\.(\d\.[a-z]+)", r"head.cls_tower.\1"),
    (r"head\.regression_head\.conv\.(\d\.[a-z]+)", r"head.box_tower.\1"),
]
# Keys of the group `model` that the two networks of torchvision need: those of configs/torchvision_r50*.yaml.
TORCHVISION_KEYS: dict[str, Any] = {
    "backbone": "resnet50",
    "deformable": False,
    "norm": "frozen_batch",
    "fpn_channels": 256,
    "head_convs": 4,
    "p7_relu": True,
    "anchor_ratios": (0.5, 1.0, 2.0),
    "anchor_octave_scales": (1.0, 2 ** (1 / 3), 2 ** (2 / 3)),
    "anchor_base_scale": 4.0,
    "box_convention": "torchvision",
}
STARTS: dict[str, dict[str, Any]] = {
    "torchvision/retinanet_resnet50_fpn": {**TORCHVISION_KEYS, "p6_from": "p5", "head_norm": None},
    "torchvision/retinanet_resnet50_fpn_v2": {**TORCHVISION_KEYS, "p6_from": "c5", "head_norm": "group"},
}
TOWERS = (("classification_head", "cls_tower"), ("regression_head", "box_tower"))


def from_alrp(state: object) -> Released:
    """The weights of any of the authors' eight RetinaNet rows.

    Raises:
        ReleasedError: tensors of another model, or of a network that no shipped config has.
    """
    theirs = named_tensors(state)
    box_rows, cls_rows = (rows_of(theirs, f"bbox_head.retina_{kind}.weight") for kind in ("reg", "cls"))
    num_anchors = max(1, box_rows // 4)
    network = (
        sum(bool(re.fullmatch(r"backbone\.layer3\.\d+\.conv1\.weight", name)) for name in theirs),
        groups_of(theirs, "backbone.layer1.0.conv2.weight"),
        "backbone.layer4.0.conv2.conv_offset.weight" in theirs,
        num_anchors,
    )
    if network not in ALRP_CONFIGS:
        depth, groups, deformable, _ = network
        raise ReleasedError(
            f"no released model has {depth} blocks in layer3, {groups} groups, {num_anchors} anchors per cell and "
            f"{'' if deformable else 'no '}deformable convolutions; expected a checkpoint of one of the rows in "
            "docs/models.md"
        )
    return Released(renamed(theirs, ALRP_NAMES), ALRP_CONFIGS[network], cls_rows // num_anchors)


def from_torchvision(state: object) -> Released:
    """The weights of torchvision's retinanet_resnet50_fpn or …_v2 with COCO's classes.

    Of the 91 class columns the 80 that COCO uses are kept. BatchNorm without batch counters is torchvision's frozen
    one, which its COCO_V1 weights expect with ε 0: ours has ε 1e-5, so the difference goes into its weight.

    Raises:
        ReleasedError: tensors of another model, or of other classes.
    """
    theirs = named_tensors(state)
    if "head.regression_head.bbox_ctrness.weight" in theirs:
        raise OtherFamilyError("has a branch for centreness, as RetinaNet has none")
    num_anchors = max(1, rows_of(theirs, "head.regression_head.bbox_reg.weight") // 4)
    require_coco_columns(rows_of(theirs, "head.classification_head.cls_logits.weight") / num_anchors)
    has_norm = "head.classification_head.conv.0.1.weight" in theirs
    layers = 3 if has_norm else 2  # per convolution of our towers
    weights = renamed(theirs, [*RETINANET_NAMES, *(_tower_names(*tower, layers) for tower in TOWERS)])
    keep_coco_columns(weights, num_anchors)
    replace_frozen_batchnorm(weights, eps=0.0)
    return Released(weights, f"torchvision_r50{'_v2' if has_norm else ''}", len(COCO_IDS))


def _tower_names(theirs: str, ours: str, layers: int) -> Rename:
    """Convolution i is i.0 there, its GroupNorm i.1."""
    return rf"head\.{theirs}\.conv\.(\d)\.(\d)\.(.+)", lambda m: f"head.{ours}.{layers * int(m[1]) + int(m[2])}.{m[3]}"
