"""Config to detector: the only place in this package that sees one."""

import logging
from collections.abc import Mapping
from typing import Any

from detector.anchors import AnchorGenerator
from detector.backbones.fpn import FPN
from detector.backbones.resnet import ResNet
from detector.boxes import PAPER_CODING, TORCHVISION_CODING
from detector.config import LossConfig, ModelConfig
from detector.criterion import Criterion, Matcher
from detector.matcher import ATSSMatcher, MaxIoUMatcher
from detector.postprocess import PostProcessor
from detector.retinanet.head import RetinaNetHead
from detector.retinanet.retinanet import RetinaNet
from detector.weights import load_detector_weights, load_imagenet_weights

logger = logging.getLogger(__name__)

STRIDES = (8, 16, 32, 64, 128)  # P3–P7


def build_detector(config: Any, num_classes: int, load_weights: bool = True) -> RetinaNet:
    """RetinaNet as configured, on the CPU, in training mode.

    Args:
        config: object or mapping with the groups `model` and `loss` (`ModelConfig` and `LossConfig`, or
            mappings that are validated into them; defaults where missing) and optionally `data`, of which
            `crowd` ("background" or "ignore") is read.
        num_classes: K ≥ 1.
        load_weights: load what model.weights or model.init_from names. False for a caller that loads a
            checkpoint next.
    Raises:
        pydantic.ValidationError: a mapping has an unknown key or an impossible value.
        WeightsError: the weights are not to be had, or do not fit.
        ValueError: num_classes < 1, or an unknown data.crowd.
    """
    if num_classes < 1:
        raise ValueError(f"num_classes is {num_classes}, must be at least 1")
    model = ModelConfig.model_validate(_get(config, "model", {}))
    loss = LossConfig.model_validate(_get(config, "loss", {}))
    crowd = _get(_get(config, "data", {}), "crowd", "background")
    if crowd not in ("background", "ignore"):
        raise ValueError(f"data.crowd is {crowd!r}, must be background or ignore")

    coding = TORCHVISION_CODING if model.box_convention == "torchvision" else PAPER_CODING
    backbone = ResNet(model.backbone, model.norm, model.frozen_stages, model.deformable)
    anchor_generator = build_anchor_generator(model)
    head = RetinaNetHead(
        model.fpn_channels,
        anchor_generator.num_anchors,
        num_classes,
        model.head_convs,
        model.head_norm == "group",
        model.prior,
    )
    criterion = Criterion(
        build_matcher(model),
        loss.name,
        loss.loc_error,
        loss.box_loss,
        loss.box_weights,
        loss.delta,
        loss.alpha,
        loss.gamma,
        loss.self_balance,
        ignore_crowd=crowd == "ignore",
        coding=coding,
    )
    postprocess = PostProcessor(
        model.score_thresh, model.topk_candidates, model.nms_thresh, model.detections_per_img, coding
    )
    fpn = FPN(backbone.out_channels, model.fpn_channels, model.p7_relu, model.p6_from)
    detector = RetinaNet(backbone, fpn, head, anchor_generator, criterion, postprocess)
    if load_weights:
        _load_weights(detector, model)
    return detector


def build_anchor_generator(model: ModelConfig) -> AnchorGenerator:
    """Anchors of the five levels P3 to P7."""
    return AnchorGenerator(
        STRIDES,
        model.anchor_ratios,
        model.anchor_octave_scales,
        model.anchor_base_scale,
        model.box_convention == "torchvision",
    )


def build_matcher(model: ModelConfig) -> Matcher:
    """What tells positive anchors from negative ones."""
    return ATSSMatcher() if model.matcher == "atss" else MaxIoUMatcher()


def _load_weights(detector: RetinaNet, model: ModelConfig) -> None:
    if model.init_from is not None:
        load_detector_weights(detector, model.init_from)
    elif model.weights is not None:
        load_imagenet_weights(detector.backbone, model.backbone, model.weights)
    elif model.norm == "frozen_batch" or model.frozen_stages > 0:
        logger.warning(
            "model.weights is null, so model.norm=%s model.frozen_stages=%d freeze random values; "
            "from scratch use model.norm=group (or batch) model.frozen_stages=0",
            model.norm,
            model.frozen_stages,
        )


def _get(config: Any, name: str, default: Any) -> Any:
    return config.get(name, default) if isinstance(config, Mapping) else getattr(config, name, default)
