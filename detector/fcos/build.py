"""Config to FCOS."""

from detector.anchors import AnchorGenerator
from detector.backbones.build import build_backbone
from detector.backbones.fpn import FPN
from detector.fcos.config import FCOSConfig
from detector.fcos.fcos import FCOS
from detector.fcos.head import FCOSHead
from detector.fcos.objective import FCOSObjective
from detector.fcos.points import DistanceCoding, PointMatcher
from detector.postprocess import PostProcessor
from losses.loss import LossSettings
from losses.table import build_loss

STRIDES = (8, 16, 32, 64, 128)


def build_fcos(model: FCOSConfig, loss: LossSettings, num_classes: int, ignore_crowd: bool) -> FCOS:
    """FCOS as configured, with random weights."""
    coding = DistanceCoding(in_strides=model.distances == "relu")
    backbone = build_backbone(model)
    fpn = FPN(backbone.out_channels, model.fpn_channels, model.p7_relu, model.p6_from)
    head = FCOSHead(
        model.fpn_channels,
        num_classes,
        len(STRIDES),
        model.head_convs,
        model.centerness,
        model.distances == "exp",
        model.prior,
    )
    torchvisions = model.conventions == "torchvision"
    cells = AnchorGenerator(STRIDES, (1.0,), (1.0,), 1.0, whole_pixels=torchvisions, shift=0.0 if torchvisions else 0.5)
    matcher = PointMatcher(STRIDES, model.center_radius, model.range_limits)
    objective = FCOSObjective(matcher, build_loss(loss), ignore_crowd, coding)
    postprocess = PostProcessor(
        model.score_thresh, model.topk_candidates, model.nms_thresh, model.detections_per_img, coding
    )
    return FCOS(backbone, fpn, head, cells, objective, postprocess, score_thresh_of_root=torchvisions)
