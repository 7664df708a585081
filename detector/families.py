"""The families of detectors that `model.family` can name: one folder each."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from pydantic import Discriminator, Tag, TypeAdapter

from detector.config import DEFAULT_LOSS, ModelConfig
from detector.contract import Detections, Detector
from detector.references import References
from detector.released import Released
from detector.retinanet import build as retinanet
from detector.retinanet.config import RetinaNetConfig
from detector.retinanet.export import detections_from_outputs
from detector.retinanet.released import from_alrp, from_torchvision
from losses.table import LOSSES


class Family(NamedTuple):
    """What there is to know of a family without building a detector.

    Attributes:
        config: class of its group `model`.
        build: (model, loss settings, number of classes, whether crowd regions are ignored) -> detector.
        references: (model) -> the boxes that predictions start from; None for a family without any.
        detections_from_outputs: (outputs in order, `output_settings`, image sizes) -> detections, without the network.
        released: who released weights of this family -> their state dict to ours. Raises ReleasedError.
    """

    config: type[ModelConfig]
    build: Callable[[Any, Any, int, bool], Detector]
    references: Callable[[Any], References] | None
    detections_from_outputs: Callable[..., Detections]
    released: Mapping[str, Callable[[object], Released]] = {}


FAMILIES: dict[str, Family] = {
    "retinanet": Family(
        RetinaNetConfig,
        retinanet.build_retinanet,
        retinanet.build_references,
        detections_from_outputs,
        {"alrp": from_alrp, "torchvision": from_torchvision},
    ),
}
DEFAULT_FAMILY = "retinanet"


def _family_name(value: Any) -> Any:
    return value.get("family", DEFAULT_FAMILY) if isinstance(value, dict) else getattr(value, "family", None)


def _union(types: list[Any]) -> Any:
    result = types[0]
    for each in types[1:]:
        result = result | each
    return result


# The type of the group `model`: the settings class of the family that `family` says.
if TYPE_CHECKING:
    ModelField = ModelConfig
else:
    ModelField = Annotated[
        _union([Annotated[family.config, Tag(name)] for name, family in FAMILIES.items()]), Discriminator(_family_name)
    ]
_MODEL_FIELD: TypeAdapter[ModelConfig] = TypeAdapter(ModelField)


def model_settings(value: Any) -> ModelConfig:
    """Settings from a mapping or as they are. Raises pydantic.ValidationError: unknown key or impossible value."""
    return _MODEL_FIELD.validate_python(value)


def with_loss_defaults(model: Any, loss: Any) -> Any:
    """The group `model` with the chosen loss's own defaults (`LossSettings.model_defaults`) below the given keys.

    Args:
        model, loss: the groups, as mappings or settings; settings of a model are complete and stay as they are.
    """
    name = loss.get("name", DEFAULT_LOSS) if isinstance(loss, Mapping) else getattr(loss, "name", None)
    if not isinstance(model, Mapping) or str(name) not in LOSSES or str(_family_name(model)) not in FAMILIES:
        return model  # what is wrong with them is said where they are validated
    keys = FAMILIES[_family_name(model)].config.model_fields
    defaults = LOSSES[str(name)].Settings.model_defaults
    return {key: value for key, value in defaults.items() if key in keys} | dict(model)


def build_references(model: ModelConfig) -> References | None:
    """The boxes that predictions of a model start from, without its network; None for a family without any."""
    build = FAMILIES[model.family].references
    return None if build is None else build(model)
