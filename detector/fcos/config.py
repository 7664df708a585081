"""Settings of FCOS."""

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, field_validator

from detector.config import ModelConfig, PositiveFloat, PositiveInt, Probability
from detector.fcos.points import CENTER_RADIUS, RANGE_LIMITS


class FCOSConfig(ModelConfig):
    """Network, points and post-processing of FCOS; the defaults are those of its improved variant.

    As first published it has `center_radius: null`, `centerness: cls`, `distances: exp` and `loss.box_loss: log_iou`.
    """

    family: Literal["fcos"] = "fcos"
    """The detector."""
    fpn_channels: Annotated[int, Field(ge=32, multiple_of=32)] = 256
    """Channels of the pyramid and of the heads, whose GroupNorm has 32 groups."""
    head_convs: Annotated[int, Field(ge=0)] = 4
    """Convolutions in each head before its last."""
    p6_from: Literal["c5", "p5"] = "p5"
    """The map that P6 is made of."""
    p7_relu: bool = True
    """ReLU between P6 and P7."""
    prior: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.01
    """Score of every class and point before training."""

    center_radius: PositiveFloat | None = CENTER_RADIUS
    """A point is positive at most so many strides from its object's centre, each axis by itself; null: anywhere in the
    box."""
    range_limits: Annotated[tuple[PositiveFloat, ...], Field(min_length=4, max_length=4, strict=False)] = RANGE_LIMITS
    """Between the five levels: pixels from a point to the farthest side of its object."""
    centerness: Literal["box", "cls"] | None = "box"
    """The tower that centreness comes from, which weighs boxes in training and scores in detection; null: no
    centreness."""
    distances: Literal["relu", "exp"] = "relu"
    """What makes distances of the head's numbers: ReLU, in strides, or the exponential, in pixels."""

    conventions: Literal["paper", "torchvision"] = "paper"
    """torchvision: points on the corners of cells, which are image size // map size apart, and `score_thresh` is of
    √(class · centreness), for weights that were trained so."""
    score_thresh: Probability = 0.05
    """A detection's class scores more than this; its own score, lowered by centreness, may be less."""
    topk_candidates: PositiveInt = 1000
    """(point, class) entries that each pyramid level sends to NMS at most."""
    nms_thresh: Probability = 0.6
    """IoU above which the worse of two detections of a class goes."""

    @field_validator("range_limits")
    @classmethod
    def _ascending(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(high <= low for low, high in pairwise(value)):
            raise ValueError("must be ascending")
        return value
