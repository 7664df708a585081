"""Settings that detectors of all families share, and the group `loss`: default, range and meaning, in one place."""

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    Tag,
    TypeAdapter,
    create_model,
    model_validator,
)

from losses.loss import LossSettings
from losses.table import LOSSES

Probability = Annotated[float, Field(ge=0.0, le=1.0)]
PositiveFloat = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
PositiveInt = Annotated[int, Field(ge=1)]

STRICT = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)

DEFAULT_LOSS = "alrp"
BackboneName = Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnext101_64x4d"]
DEFORMABLE = ("resnet50", "resnet101", "resnext101_64x4d")


class ModelConfig(BaseModel):
    """The keys of the group `model` that every family has. A family's own class adds more, and its name."""

    model_config = STRICT

    family: str
    """The detector."""
    backbone: BackboneName = "resnet50"
    """The network that features come from."""
    deformable: bool = False
    """Modulated deformable 3×3 convolutions in the last three stages (not resnet18, resnet34)."""
    norm: Literal["frozen_batch", "batch", "sync_batch", "group"] = "frozen_batch"
    """Normalisation in the backbone; group for training from scratch."""
    frozen_stages: Annotated[int, Field(ge=0, le=5)] = 2
    """0 none, 1 the stem, 2 the stem and the first residual stage, ... 5 the whole backbone."""
    weights: str | None = "DEFAULT"
    """ImageNet weights: a name of torchvision's weights API, a local file, or null."""
    init_from: str | None = None
    """Detector to fine-tune: a checkpoint, of which everything but a class head of other classes is loaded; or the name
    of a released one, `torchvision/retinanet_resnet50_fpn`, `…_v2`, `torchvision/fcos_resnet50_fpn` or
    `torchvision/fasterrcnn_resnet50_fpn`, which brings the keys of its network with it."""

    score_thresh: Probability = 0.05
    """A detection scores more than this."""
    detections_per_img: PositiveInt = 100
    """How many detections of an image remain at most."""

    def unused_keys(self) -> dict[str, str]:
        """Keys that do nothing beside another one, and that one with its value."""
        return {}

    @model_validator(mode="after")
    def _deformable_bottlenecks(self) -> "ModelConfig":
        if self.deformable and self.backbone not in DEFORMABLE:
            raise ValueError("deformable: true needs a backbone of bottleneck blocks, resnet50 or larger")
        return self


def _checked_as_config(settings: type[LossSettings]) -> Any:
    """A settings class of losses/, which know no pydantic, as a type that pydantic checks strictly and converts."""
    hints = get_type_hints(settings)
    defaults: dict[str, Any] = {
        field.name: (hints[field.name], field.default) for field in dataclasses.fields(settings)
    }
    # A class made here has no source, for which pydantic would search all modules: half a second at every start.
    model: Any = create_model(settings.__name__, __config__=STRICT | {"use_attribute_docstrings": False}, **defaults)
    _, name = defaults["name"]
    return Annotated[model, AfterValidator(lambda values: settings(**dict(values))), Tag(name)]


def _as_mapping(value: Any) -> Any:
    return dataclasses.asdict(value) if isinstance(value, LossSettings) else value


def _loss_name(value: Any) -> Any:
    return value.get("name", DEFAULT_LOSS) if isinstance(value, dict) else None


def union_of(types: list[Any]) -> Any:
    """The union of types that are known only when the program runs."""
    result = types[0]
    for each in types[1:]:
        result = result | each
    return result


# The type of the group `loss`: the settings of the loss that `name` says, which becomes an instance of its class.
if TYPE_CHECKING:
    LossField = LossSettings
else:
    LossField = Annotated[
        union_of([_checked_as_config(loss.Settings) for loss in LOSSES.values()]),
        Discriminator(_loss_name),
        BeforeValidator(_as_mapping),
        PlainSerializer(dataclasses.asdict),
    ]
_LOSS_FIELD: TypeAdapter[LossSettings] = TypeAdapter(LossField)


def loss_settings(value: Any) -> LossSettings:
    """Settings from a mapping or as they are. Raises pydantic.ValidationError: unknown key or impossible value."""
    return _LOSS_FIELD.validate_python(value)
