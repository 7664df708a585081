"""The families of detectors that `model.family` can name: one folder each."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from pydantic import Discriminator, Tag, TypeAdapter

from detector.config import DEFAULT_LOSS, ModelConfig, union_of
from detector.contract import Detector
from detector.fcos import build as fcos
from detector.fcos.config import FCOSConfig
from detector.references import References
from detector.released import Released
from detector.retinanet import build as retinanet
from detector.retinanet.config import RetinaNetConfig
from detector.retinanet.released import from_alrp, from_torchvision
from losses.loss import LossSettings
from losses.table import LOSSES

DENSE_LOSSES = ("alrp", "ap", "rs", "focal", "dr")  # of sigmoid heads that score every place


class Family(NamedTuple):
    """Facts of a family that need no detector to be built.

    Attributes:
        config: class of its group `model`.
        build: (model, loss settings, number of classes, whether crowd regions are ignored) -> detector.
        references: (model) -> the boxes that predictions start from; None for a family without any.
        released: who released weights of this family -> their state dict to ours. Raises ReleasedError.
        losses: values of `loss.name` that the family's heads can learn by.
        loss_defaults: keys of the group `loss` in place of their usual defaults, where the chosen loss has them; "name"
            is the family's usual loss.
    """

    config: type[ModelConfig]
    build: Callable[[Any, Any, int, bool], Detector]
    references: Callable[[Any], References] | None
    released: Mapping[str, Callable[[object], Released]] = {}
    losses: tuple[str, ...] = DENSE_LOSSES
    loss_defaults: Mapping[str, Any] = {"name": DEFAULT_LOSS}


FAMILIES: dict[str, Family] = {
    "retinanet": Family(
        RetinaNetConfig,
        retinanet.build_retinanet,
        retinanet.build_references,
        {"alrp": from_alrp, "torchvision": from_torchvision},
    ),
    "fcos": Family(
        FCOSConfig,
        fcos.build_fcos,
        None,
        loss_defaults={"name": "focal", "box_loss": "giou"},
    ),
}
DEFAULT_FAMILY = "retinanet"


def _family_name(value: Any) -> Any:
    return value.get("family", DEFAULT_FAMILY) if isinstance(value, dict) else getattr(value, "family", None)


# The type of the group `model`: the settings class of the family that `family` says.
if TYPE_CHECKING:
    ModelField = ModelConfig
else:
    ModelField = Annotated[
        union_of([Annotated[family.config, Tag(name)] for name, family in FAMILIES.items()]),
        Discriminator(_family_name),
    ]
_MODEL_FIELD: TypeAdapter[ModelConfig] = TypeAdapter(ModelField)


def model_settings(value: Any) -> ModelConfig:
    """Settings from a mapping or as they are. Raises pydantic.ValidationError: unknown key or impossible value."""
    return _MODEL_FIELD.validate_python(value)


def usual_loss(model: Any) -> str:
    """`loss.name` where it is not given, for the group `model`, a mapping or settings."""
    family = FAMILIES.get(str(_family_name(model)), FAMILIES[DEFAULT_FAMILY])
    return family.loss_defaults["name"]


def with_own_defaults(model: Any, loss: Any) -> tuple[Any, Any]:
    """The groups `model` and `loss` with the defaults that each has for the other below the given keys.

    A family has some for its losses (`Family.loss_defaults`), a loss some for its detector
    (`LossSettings.model_defaults`). Settings, as against mappings, are complete and stay as they are; so does what
    is wrong, which is said where it is validated.
    """
    if str(_family_name(model)) not in FAMILIES:
        return model, loss
    family = FAMILIES[_family_name(model)]
    if isinstance(loss, Mapping):
        name = loss.get("name", family.loss_defaults["name"])
        keys = LOSSES[str(name)].Settings.key_names() if str(name) in LOSSES else ("name",)
        loss = {key: value for key, value in family.loss_defaults.items() if key in keys} | dict(loss)
    name = loss["name"] if isinstance(loss, Mapping) else getattr(loss, "name", None)
    if isinstance(model, Mapping) and str(name) in LOSSES:
        defaults, keys = LOSSES[str(name)].Settings.model_defaults, tuple(family.config.model_fields)
        model = {key: value for key, value in defaults.items() if key in keys} | dict(model)
    return model, loss


def require_loss_of_family(model: ModelConfig, loss: LossSettings) -> None:
    """Raises ValueError where the family's heads cannot learn by the loss."""
    losses = FAMILIES[model.family].losses
    if loss.name not in losses:
        raise ValueError(
            f"loss.name: {loss.name} does not go with model.family: {model.family}; {', '.join(losses)} do"
        )


def build_references(model: ModelConfig) -> References | None:
    """The boxes that predictions of a model start from, without its network; None for a family without any."""
    build = FAMILIES[model.family].references
    return None if build is None else build(model)
