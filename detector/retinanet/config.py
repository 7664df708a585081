"""Settings of RetinaNet."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from detector.config import ModelConfig, PositiveFloat, PositiveInt, Probability


class RetinaNetConfig(ModelConfig):
    """Network, anchors, matching and post-processing of RetinaNet; the defaults are the paper's."""

    family: Literal["retinanet"] = "retinanet"
    """The detector."""
    fpn_channels: PositiveInt = 256
    """Channels of the pyramid and of the heads."""
    head_convs: Annotated[int, Field(ge=0)] = 4
    """Convolutions in each head before its last."""
    head_norm: Literal["group"] | None = None
    """GroupNorm in the heads, for training from scratch."""
    p6_from: Literal["c5", "p5"] = "c5"
    """The map that P6 is made of."""
    p7_relu: bool = False
    """ReLU between P6 and P7."""
    prior: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.01
    """Score of every class and anchor before training."""

    anchor_ratios: Annotated[tuple[PositiveFloat, ...], Field(min_length=1, strict=False)] = (0.5, 1.0, 2.0)
    """Height / width of the anchors."""
    anchor_octave_scales: Annotated[tuple[PositiveFloat, ...], Field(min_length=1, strict=False)] = (1.0, 2**0.5)
    """Sizes of the anchors relative to their level's base size."""
    anchor_base_scale: PositiveFloat = 4.0
    """Base size of the anchors in strides."""
    box_convention: Literal["paper", "torchvision"] = "paper"
    """torchvision: anchors of whole pixels, spaced by image size // map size, and offsets without divisors, for weights
    that were trained with them."""
    matcher: Literal["max_iou", "atss"] = "max_iou"
    """What tells positive anchors from negative ones."""
    background_iou: Annotated[float, Field(gt=0.0, le=0.5)] = 0.4
    """Best IoU below which max_iou has an anchor be negative; from there to 0.5, from where on it is positive, it is
    ignored."""

    topk_candidates: PositiveInt = 1000
    """(anchor, class) entries that each pyramid level sends to NMS at most."""
    nms_thresh: Probability = 0.5
    """IoU above which the worse of two detections of a class goes."""

    def unused_keys(self) -> dict[str, str]:
        return {"background_iou": "model.matcher: atss"} if self.matcher == "atss" else {}

    @model_validator(mode="after")
    def _whole_groups(self) -> "RetinaNetConfig":
        if self.head_norm == "group" and self.fpn_channels % 32:
            raise ValueError("head_norm: group needs fpn_channels to be a multiple of its 32 groups")
        return self
