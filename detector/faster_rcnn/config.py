"""Settings of Faster R-CNN."""

from typing import Annotated, Literal

from pydantic import Field

from detector.config import ModelConfig, PositiveFloat, PositiveInt, Probability


class FasterRCNNConfig(ModelConfig):
    """Network, anchors, proposals, sampling and post-processing of Faster R-CNN; the defaults are MMDetection's.

    RPN: the head that proposes regions. RoI: a proposed region, which the second head classifies.
    """

    family: Literal["faster_rcnn"] = "faster_rcnn"
    """The detector."""
    fpn_channels: PositiveInt = 256
    """Channels of the pyramid and of the RPN."""
    fc_channels: PositiveInt = 1024
    """Width of the two fully connected layers of the second head."""
    rpn_prior: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5
    """Score of every anchor before training; the second head starts undecided."""

    anchor_ratios: Annotated[tuple[PositiveFloat, ...], Field(min_length=1, strict=False)] = (0.5, 1.0, 2.0)
    """Height / width of the anchors."""
    anchor_octave_scales: Annotated[tuple[PositiveFloat, ...], Field(min_length=1, strict=False)] = (1.0,)
    """Sizes of the anchors relative to their level's base size."""
    anchor_base_scale: PositiveFloat = 8.0
    """Base size of the anchors in strides."""
    box_convention: Literal["paper", "torchvision"] = "paper"
    """torchvision: anchors of whole pixels, spaced by image size // map size, and RoIs that are pooled half a pixel off
    by two samples a bin and axis, for weights that were trained with them."""

    rpn_samples: PositiveInt | None = 256
    """Anchors of an image that the RPN learns from, drawn at random; null: all."""
    rpn_positive_share: Probability = 0.5
    """Share of positives among them at most."""
    rpn_weight: PositiveFloat = 1.0
    """Weight of the RPN's loss."""
    rpn_candidates: PositiveInt = 1000
    """Anchors that each pyramid level sends to the NMS of proposals at most."""
    rpn_candidates_train: PositiveInt = 2000
    """The same in training."""
    rpn_nms_thresh: Probability = 0.7
    """IoU above which the worse of two proposals of a level goes."""
    proposals: PositiveInt = 1000
    """RoIs of an image at most."""
    append_objects: bool = True
    """Give the second head the objects too, in training."""
    roi_samples: PositiveInt | None = 512
    """RoIs of an image that the second head learns from, drawn at random; null: all."""
    roi_positive_share: Probability = 0.25
    """Share of positives among them at most."""

    nms_thresh: Probability = 0.5
    """IoU above which the worse of two detections of a class goes."""
