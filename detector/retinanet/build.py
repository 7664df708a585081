"""Builds RetinaNet from its settings."""

from detector.anchors import AnchorGenerator
from detector.assignment import Matcher
from detector.backbones.build import build_backbone
from detector.backbones.fpn import FPN
from detector.boxes import PAPER_CODING, TORCHVISION_CODING
from detector.matcher import ATSSMatcher, MaxIoUMatcher
from detector.objectives import build_objective
from detector.postprocess import PostProcessor
from detector.references import References
from detector.retinanet.config import RetinaNetConfig
from detector.retinanet.head import RetinaNetHead
from detector.retinanet.retinanet import RetinaNet
from losses.loss import LossSettings

STRIDES = (8, 16, 32, 64, 128)
LEVEL_NAMES = ("P3", "P4", "P5", "P6", "P7")


def build_retinanet(model: RetinaNetConfig, loss: LossSettings, num_classes: int, ignore_crowd: bool) -> RetinaNet:
    """Builds a RetinaNet as configured, with random weights."""
    coding = TORCHVISION_CODING if model.box_convention == "torchvision" else PAPER_CODING
    backbone = build_backbone(model)
    references = build_references(model)
    head = RetinaNetHead(
        model.fpn_channels,
        references.generator.num_anchors,
        num_classes,
        model.head_convs,
        model.head_norm == "group",
        model.prior,
    )
    objective = build_objective(references.matcher, loss, ignore_crowd, coding)
    postprocess = PostProcessor(
        model.score_thresh, model.topk_candidates, model.nms_thresh, model.detections_per_img, coding
    )
    fpn = FPN(backbone.out_channels, model.fpn_channels, model.p7_relu, model.p6_from)
    return RetinaNet(backbone, fpn, head, references, objective, postprocess)


def build_references(model: RetinaNetConfig) -> References:
    """Builds the anchors of the five levels P3 to P7, and their matcher."""
    generator = AnchorGenerator(
        STRIDES,
        model.anchor_ratios,
        model.anchor_octave_scales,
        model.anchor_base_scale,
        model.box_convention == "torchvision",
    )
    matchers: dict[str, Matcher] = {"max_iou": MaxIoUMatcher(negative_iou=model.background_iou), "atss": ATSSMatcher()}
    return References(generator, matchers[model.matcher], LEVEL_NAMES)
