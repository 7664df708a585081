"""The families of detectors that `model.family` can name: one folder each."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from pydantic import Discriminator, Tag, TypeAdapter

from detector.centernet import build as centernet
from detector.centernet.config import CenterNetConfig
from detector.config import DEFAULT_LOSS, ModelConfig, union_of
from detector.contract import Detector
from detector.faster_rcnn import build as faster_rcnn
from detector.faster_rcnn import released as faster_rcnn_released
from detector.faster_rcnn.config import FasterRCNNConfig
from detector.fcos import build as fcos
from detector.fcos import released as fcos_released
from detector.fcos.config import FCOSConfig
from detector.references import References
from detector.released import Released
from detector.retinanet import build as retinanet
from detector.retinanet.config import RetinaNetConfig
from detector.retinanet.released import STARTS, from_alrp, from_torchvision
from losses.loss import LossSettings
from losses.table import LOSSES

DENSE_LOSSES = (  # of sigmoid heads that score every place
    "alrp",
    "ap",
    "rs",
    "focal",
    "dr",
)


class Family(NamedTuple):
    """Facts of a family that need no detector to be built.

    Attributes:
        config: class of its group `model`.
        build: (model, loss settings, number of classes, whether crowd regions are ignored) -> detector.
        references: (model) -> the boxes that predictions start from; None for a family without any.
        released: who released weights of this family -> their state dict to ours. Raises ReleasedError.
        starts: released detectors that `model.init_from` can name, as origin/name, and the keys of the group `model`
            that make up their networks.
        losses: values of `loss.name` that the family's heads can learn by.
        loss_defaults: keys of the group `loss` in place of their usual defaults, where the chosen loss has them; "name"
            is the family's usual loss.
    """

    config: type[ModelConfig]
    build: Callable[[Any, Any, int, bool], Detector]
    references: Callable[[Any], References] | None
    released: Mapping[str, Callable[[object], Released]] = {}
    starts: Mapping[str, Mapping[str, Any]] = {}
    losses: tuple[str, ...] = DENSE_LOSSES
    loss_defaults: Mapping[str, Any] = {"name": DEFAULT_LOSS}


FAMILIES: dict[str, Family] = {
    "retinanet": Family(
        RetinaNetConfig,
        retinanet.build_retinanet,
        retinanet.build_references,
        {"alrp": from_alrp, "torchvision": from_torchvision},
        STARTS,
        losses=(*DENSE_LOSSES, "freeanchor"),
    ),
    "faster_rcnn": Family(
        FasterRCNNConfig,
        faster_rcnn.build_faster_rcnn,
        faster_rcnn.build_references,
        {"alrp": faster_rcnn_released.from_alrp, "torchvision": faster_rcnn_released.from_torchvision},
        faster_rcnn_released.STARTS,
        losses=("ce", "alrp", "rs"),
        loss_defaults={"name": "ce"},
    ),
    "fcos": Family(
        FCOSConfig,
        fcos.build_fcos,
        None,
        {"torchvision": fcos_released.from_torchvision},
        fcos_released.STARTS,
        loss_defaults={"name": "focal", "box_loss": "giou"},
    ),
    "centernet": Family(
        CenterNetConfig,
        centernet.build_centernet,
        None,
        losses=("centernet",),
        loss_defaults={"name": "centernet"},
    ),
}
DEFAULT_FAMILY = "retinanet"


def start_keys(model: Any) -> Mapping[str, Any]:
    """Keys of the group `model` that the released detector which its `init_from` names needs; none where that is a
    file, or nothing."""
    name = model.get("init_from") if isinstance(model, Mapping) else getattr(model, "init_from", None)
    for family, facts in FAMILIES.items():
        if isinstance(name, str) and name in facts.starts:
            return {"family": family, **facts.starts[name]}
    return {}


def family_name(value: Any) -> Any:
    """`model.family`, given or not, of the group `model`, a mapping or settings."""
    if isinstance(value, dict):
        return value.get("family", start_keys(value).get("family", DEFAULT_FAMILY))
    return getattr(value, "family", None)


# The type of the group `model`: the settings class of the family that `family` says.
if TYPE_CHECKING:
    ModelField = ModelConfig
else:
    ModelField = Annotated[
        union_of([Annotated[family.config, Tag(name)] for name, family in FAMILIES.items()]),
        Discriminator(family_name),
    ]
_MODEL_FIELD: TypeAdapter[ModelConfig] = TypeAdapter(ModelField)


def model_settings(value: Any) -> ModelConfig:
    """Settings from a mapping or as they are. Raises pydantic.ValidationError: unknown key or impossible value."""
    return _MODEL_FIELD.validate_python(value)


def usual_loss(model: Any) -> str:
    """`loss.name` where it is not given, for the group `model`, a mapping or settings."""
    family = FAMILIES.get(str(family_name(model)), FAMILIES[DEFAULT_FAMILY])
    return family.loss_defaults["name"]


def with_own_defaults(model: Any, loss: Any) -> tuple[Any, Any]:
    """The groups `model` and `loss` with the defaults that each has for the other below the given keys.

    A family has some for its losses (`Family.loss_defaults`), a loss some for its detector
    (`LossSettings.model_defaults`), a released detector to start from all of its network (`Family.starts`). Settings,
    as against mappings, are complete and stay as they are; so does what is wrong, which is said where it is validated.
    """
    if str(family_name(model)) not in FAMILIES:
        return model, loss
    family = FAMILIES[family_name(model)]
    start = start_keys(model)
    if isinstance(model, Mapping) and start.get("family") == family_name(model):
        model = {**start, **model}
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
    """Raises ValueError where the family's heads cannot learn by the loss, or a key does nothing beside others."""
    losses = FAMILIES[model.family].losses
    if loss.name not in losses:
        raise ValueError(
            f"loss.name: {loss.name} does not go with model.family: {model.family}; {', '.join(losses)} do"
        )
    fields = type(model).model_fields
    unused = {key: f"loss.name: {loss.name}" for key in loss.unused_model_keys if key in fields} | model.unused_keys()
    for key, other in unused.items():
        usual, value = fields[key].default, getattr(model, key)
        if value not in (usual, loss.model_defaults.get(key, usual)):
            raise ValueError(f"model.{key}: does nothing with {other} (found {value!r}); leave it at {usual}")


def require_start(model: ModelConfig) -> None:
    """Raises ValueError where `init_from` names a released detector of another network than the model's, with all
    keys that contradict it, or none that is known."""
    name, keys = model.init_from, start_keys(model)
    if not keys:
        origins = {origin for family in FAMILIES.values() for origin in family.released}
        if name and name.partition("/")[0] in origins and not Path(name).suffix and not Path(name).exists():
            known = ", ".join(known for family in FAMILIES.values() for known in family.starts)
            raise ValueError(f"model.init_from: {name!r} is neither a file nor a detector known by name; {known} are")
        return
    theirs = model_settings(keys)
    compared = keys if model.family == theirs.family else ["family"]
    wrong = [
        f"model.{key} is {_plain(getattr(model, key))}, there {_plain(getattr(theirs, key))}"
        for key in compared
        if getattr(model, key) != getattr(theirs, key)
    ]
    if wrong:
        raise ValueError(f"keys contradict model.init_from={name}: {'; '.join(wrong)}; remove them")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def build_references(model: ModelConfig) -> References | None:
    """The boxes that predictions of a model start from, without its network; None for a family without any."""
    build = FAMILIES[model.family].references
    return None if build is None else build(model)
