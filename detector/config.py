"""Settings of the detector and of its loss: default, range and meaning of each, in one place."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Probability = Annotated[float, Field(ge=0.0, le=1.0)]
PositiveFloat = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
PositiveInt = Annotated[int, Field(ge=1)]


class ModelConfig(BaseModel):
    """Network, anchors, matching and post-processing; the defaults are the paper's."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    backbone: Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnext101_64x4d"] = "resnet50"
    deformable: bool = False  # modulated deformable 3×3 convolutions in the last three stages (not resnet18, resnet34)
    norm: Literal["frozen_batch", "batch", "sync_batch", "group"] = "frozen_batch"
    # 0 none, 1 the stem, 2 the stem and the first residual stage, ... 5 the whole backbone
    frozen_stages: Annotated[int, Field(ge=0, le=5)] = 2
    # ImageNet weights: a name of torchvision's weights API, a local file, or null
    weights: str | None = "DEFAULT"
    # detector checkpoint to fine-tune; everything but a class head of another size is loaded
    init_from: str | None = None
    fpn_channels: PositiveInt = 256
    head_convs: Annotated[int, Field(ge=0)] = 4
    head_norm: Literal["group"] | None = None  # GroupNorm in the heads, for training from scratch
    p6_from: Literal["c5", "p5"] = "c5"
    p7_relu: bool = False
    prior: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.01

    anchor_ratios: Annotated[tuple[PositiveFloat, ...], Field(min_length=1, strict=False)] = (0.5, 1.0, 2.0)  # h / w
    anchor_octave_scales: Annotated[tuple[PositiveFloat, ...], Field(min_length=1, strict=False)] = (1.0, 2**0.5)
    anchor_base_scale: PositiveFloat = 4.0  # in strides
    # torchvision: anchors of whole pixels, spaced by image size // map size, and box offsets without divisors, for
    # weights that were trained with them
    box_convention: Literal["paper", "torchvision"] = "paper"
    matcher: Literal["max_iou", "atss"] = "max_iou"

    score_thresh: Probability = 0.05
    topk_candidates: PositiveInt = 1000  # per pyramid level
    nms_thresh: Probability = 0.5
    detections_per_img: PositiveInt = 100

    @model_validator(mode="after")
    def _whole_groups(self) -> "ModelConfig":
        if self.head_norm == "group" and self.fpn_channels % 32:
            raise ValueError("head_norm: group needs fpn_channels to be a multiple of its 32 groups")
        return self

    @model_validator(mode="after")
    def _deformable_bottlenecks(self) -> "ModelConfig":
        if self.deformable and self.backbone in ("resnet18", "resnet34"):
            raise ValueError("deformable: true needs a backbone of bottleneck blocks, resnet50 or larger")
        return self


class LossConfig(BaseModel):
    """What the detector is trained with."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: Literal["alrp", "rs", "ap", "focal"] = "alrp"
    loc_error: Literal["iou", "diou", "giou"] = "giou"  # alrp and rs
    box_loss: Literal["smooth_l1", "iou", "diou", "giou"] = "smooth_l1"  # ap and focal
    # alrp: a box counts by the positives that rank below it, as published; or all count alike, for short trainings
    box_weights: Literal["rank", "equal"] = "rank"
    delta: PositiveFloat = 1.0  # half-width of the smoothed step; the paper of rs has 0.5
    # rank over the batch of all processes or of each; the trainer sets the detector's `group` from it
    ranking: Literal["global", "local"] = "global"
    self_balance: bool = True  # alrp; rs, and alrp with equal box_weights, in every step
    balance_every: int | None = Field(None, ge=1)  # steps between two weights of alrp's; null: an epoch, as published
    alpha: Probability = 0.25  # focal only
    gamma: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 2.0  # focal only
