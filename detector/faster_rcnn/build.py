"""Builds Faster R-CNN from its settings."""

from dataclasses import replace

from detector.anchors import AnchorGenerator
from detector.assignment import Matcher
from detector.backbones.build import build_backbone
from detector.backbones.fpn import PooledFPN
from detector.boxes import MAX_LOG_RATIO, PAPER_CODING, TORCHVISION_CODING, BoxCoding
from detector.faster_rcnn.config import FasterRCNNConfig
from detector.faster_rcnn.faster_rcnn import FasterRCNN
from detector.faster_rcnn.head import RoIHead, RPNHead
from detector.faster_rcnn.objective import FasterRCNNObjective, RegionObjective
from detector.faster_rcnn.postprocess import RegionPostProcessor
from detector.faster_rcnn.proposals import Proposer
from detector.faster_rcnn.regions import RegionPooler
from detector.faster_rcnn.sampling import SampledMatcher, Sampler
from detector.matcher import MaxIoUMatcher
from detector.objectives import MatchedObjective
from detector.references import References
from losses.cross_entropy import CESettings
from losses.loss import LossSettings
from losses.table import build_loss

STRIDES = (4, 8, 16, 32, 64)
LEVEL_NAMES = ("P2", "P3", "P4", "P5", "P6")
RPN_POSITIVE_IOU, RPN_NEGATIVE_IOU = 0.7, 0.3
ROI_POSITIVE_IOU = 0.5  # from which on a region is of its object, and below which it is background


def build_faster_rcnn(model: FasterRCNNConfig, loss: LossSettings, num_classes: int, ignore_crowd: bool) -> FasterRCNN:
    """Builds a Faster R-CNN as configured, with random weights."""
    backbone = build_backbone(model, finest=2)
    references = build_references(model)
    rpn_coding, roi_coding = _codings(model, loss)
    rpn_matcher: Matcher = references.matcher
    if model.rpn_samples is not None:
        rpn_matcher = SampledMatcher(rpn_matcher, Sampler(model.rpn_samples, model.rpn_positive_share))
    rpn = MatchedObjective(rpn_matcher, build_loss(_of_rpn(loss)), ignore_crowd, rpn_coding, RPN_POSITIVE_IOU)
    sampler = None if model.roi_samples is None else Sampler(model.roi_samples, model.roi_positive_share)
    roi_matcher = SampledMatcher(MaxIoUMatcher(ROI_POSITIVE_IOU, ROI_POSITIVE_IOU, best_from=None), sampler)
    roi = RegionObjective(roi_matcher, build_loss(loss), ignore_crowd, roi_coding, model.append_objects)
    return FasterRCNN(
        backbone,
        PooledFPN(backbone.out_channels, model.fpn_channels),
        RPNHead(model.fpn_channels, references.generator.num_anchors, model.rpn_prior),
        RoIHead(model.fpn_channels, model.fc_channels, num_classes, loss.softmax),
        references,
        Proposer(rpn_coding, model.rpn_candidates, model.rpn_candidates_train, model.proposals, model.rpn_nms_thresh),
        RegionPooler(STRIDES[:-1], aligned=model.box_convention == "paper"),
        FasterRCNNObjective(rpn, roi, model.rpn_weight),
        RegionPostProcessor(roi_coding, loss.softmax, model.score_thresh, model.nms_thresh, model.detections_per_img),
    )


def build_references(model: FasterRCNNConfig) -> References:
    """Builds the anchors of the five levels P2 to P6, and their matcher."""
    generator = AnchorGenerator(
        STRIDES,
        model.anchor_ratios,
        model.anchor_octave_scales,
        model.anchor_base_scale,
        model.box_convention == "torchvision",
    )
    return References(generator, MaxIoUMatcher(RPN_POSITIVE_IOU, RPN_NEGATIVE_IOU), LEVEL_NAMES)


def _codings(model: FasterRCNNConfig, loss: LossSettings) -> tuple[BoxCoding, BoxCoding]:
    """Of anchors and of regions. The baselines' anchors have no divisors; with ranking losses both heads are alike."""
    if model.box_convention == "torchvision":
        return TORCHVISION_CODING, PAPER_CODING._replace(min_log_ratio=TORCHVISION_CODING.min_log_ratio)
    return PAPER_CODING if loss.ranks else BoxCoding((1.0, 1.0, 1.0, 1.0), -MAX_LOG_RATIO, MAX_LOG_RATIO), PAPER_CODING


def _of_rpn(loss: LossSettings) -> LossSettings:
    """The loss of the first head: in the baselines it keeps to offsets, also where the second one compares boxes."""
    if isinstance(loss, CESettings) and loss.box_loss != "smooth_l1":
        return replace(loss, box_loss="smooth_l1", box_weight=1.0)
    return loss
