"""What every loss of a detector's head has: settings, state, and parts of what the head has matched.

A loss is one file: its function on flat tensors, its settings with what others may ask of it, and the module that
makes named parts of a batch. `losses.table` lists them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from numbers import Integral, Real
from types import NoneType
from typing import Any, ClassVar, Literal, get_args, get_origin

import torch
import torch.distributed as dist
from torch import Tensor, nn

from .balance import SelfBalance
from .matched import Matched
from .precision import LARGEST

# Of a setting's type: what a value must be an instance of, so that NumPy's numbers are numbers, and how it is called.
KINDS: Mapping[type, tuple[type, str]] = {
    bool: (bool, "True or False"),
    int: (Integral, "an integer"),
    float: (Real, "a number"),
    NoneType: (NoneType, "None"),
}

TRAITS = ("label", "ranks", "update_ratios")  # that no loss has by default

# Detectors of two heads, keys of the group `model`: a loss that ranks draws no samples, needs a first head that starts
# from rare positives, and weighs it less (released code of aLRP Loss and of Rank & Sort Loss).
RANKED_HEADS: Mapping[str, Any] = {"rpn_prior": 0.01, "rpn_samples": None, "rpn_weight": 0.2, "roi_samples": None}


@dataclass(frozen=True, kw_only=True)
class LossSettings:
    """Keys of the group `loss` that every loss has. A subclass per loss adds its own, with defaults and ranges.

    Class attributes, its traits, say what others need to know of a loss without knowing which it is:
        name: value of `loss.name`.
        label: in tables.
        ranks: whether the value depends on the order of positives and negatives.
        softmax: whether classes exclude each other and background is one of them; else each has its own sigmoid.
        update_ratios: lr · |clipped gradient| / |weights|, the median over ten steps: what is usual in a healthy
            training, and from where on the rate is too high. Measured on shapes and blood cells (docs/diagnose.md): at
            ½, 1 and 2 times the shipped rate at most 1.7e-3 with ranking losses, and 1.0e-3 with focal loss; at 20
            times that rate at least 3.9e-3 and 1.8e-3.
        model_defaults: keys of the group `model` that the loss was made for, in place of their usual defaults
            where the chosen family has them.
        unused_model_keys: keys of the group `model` that do nothing with this loss, and are refused.
        hyper_parameters: settings that the paper's Table 1 counts as such, as against choices and switches.
    """

    label: ClassVar[str]
    ranks: ClassVar[bool]
    softmax: ClassVar[bool] = False
    update_ratios: ClassVar[tuple[float, float]]
    model_defaults: ClassVar[Mapping[str, Any]] = {}
    unused_model_keys: ClassVar[tuple[str, ...]] = ()
    hyper_parameters: ClassVar[tuple[str, ...]] = ()

    name: str
    """The loss."""
    ranking: Literal["global", "local"] = "global"
    """Over what the loss ranks or takes its mean: the batches of all processes, or each process's own."""

    def __post_init__(self) -> None:
        """Raises ValueError for a word that is none of its setting's, TypeError for a value of another type."""
        for field in fields(self):
            value, kinds = getattr(self, field.name), get_args(field.type) or (field.type,)
            if get_origin(field.type) is Literal:
                if value not in kinds:
                    raise ValueError(f"{field.name} must be one of {', '.join(map(str, kinds))}, got {value!r}")
            elif not any(_is_of(kind, value) for kind in kinds):
                expected = " or ".join(KINDS[kind][1] for kind in kinds)
                raise TypeError(f"{field.name} must be {expected}, got {value!r}")

    @property
    def step_half_width(self) -> float:
        """Half-width of the smoothed step by which ranks are observed: the paper's, unless the loss has its own."""
        return 1.0

    def balance_period(self, steps_per_epoch: int) -> int | None:
        """Steps between two updates of the weight of a `SelfBalance`; None for a loss without one."""
        return None

    @classmethod
    def key_names(cls) -> tuple[str, ...]:
        """Names of the settings."""
        return tuple(field.name for field in fields(cls))

    @classmethod
    def names_in_code(cls) -> tuple[str, ...]:
        """Those that a module takes by name: not `name` and `ranking`, which its class and its group say."""
        return tuple(name for name in cls.key_names() if name not in ("name", "ranking"))


class Loss(nn.Module):
    """Loss of one head.

    Args:
        settings: of the class `Settings`; None takes the defaults.
    Raises:
        TypeError: settings of another loss, or something else.

    Attributes:
        balance: weight of the localisation part where it is state, else None.
    """

    Settings: ClassVar[type[LossSettings]]

    def __init_subclass__(cls) -> None:
        """Raises TypeError for settings without one of the traits that no loss has by default."""
        if hasattr(cls, "Settings") and (missing := [name for name in TRAITS if not hasattr(cls.Settings, name)]):
            raise TypeError(f"{cls.Settings.__name__} must have {', '.join(missing)}; see losses.loss.LossSettings")

    def __init__(self, settings: LossSettings | None = None) -> None:
        super().__init__()
        if settings is not None and not isinstance(settings, self.Settings):
            raise TypeError(f"settings must be {self.Settings.__name__}, or given by name; got {settings!r}")
        # every settings class but their base has a name
        self.settings = self.Settings() if settings is None else settings  # type: ignore[call-arg]
        self.balance: SelfBalance | None = None

    def extra_repr(self) -> str:
        """The settings, in print(module); but for `ranking`, which is for who passes the group."""
        return ", ".join(f"{name}={getattr(self.settings, name)!r}" for name in self.settings.names_in_code())

    def of_matched(self, matched: Matched, group: dist.ProcessGroup | None = None) -> dict[str, Tensor]:
        """Parts of the loss of a batch.

        Args:
            group: process group over whose batches to rank or average; None for this process alone.
        Returns:
            scalars, float32 or float64: "loss", to differentiate, and its unweighted parts, which all are named
            "loss_…". Without any positive, parts that only positives have are zero and attached to the graph.
        """
        raise NotImplementedError


def _is_of(kind: type, value: object) -> bool:
    if isinstance(value, bool):  # which Python takes for an integer
        return kind is bool
    return isinstance(value, KINDS[kind][0])


def require_positive(settings: LossSettings, *names: str) -> None:
    """Raises ValueError unless the settings of these names are positive numbers below 1e300."""
    for name in names:
        if not 0 < float(getattr(settings, name)) < LARGEST:
            raise ValueError(f"{name} must be a positive number below {LARGEST:g}, got {getattr(settings, name)}")


def require_from_zero(settings: LossSettings, *names: str) -> None:
    """Raises ValueError unless the settings of these names are finite numbers from 0 on."""
    for name in names:
        if not 0 <= getattr(settings, name) < float("inf"):
            raise ValueError(f"{name} must be a finite number from 0 on, got {getattr(settings, name)}")


def require_share(settings: LossSettings, name: str) -> None:
    """Raises ValueError unless the setting lies in 0..1."""
    if not 0 <= getattr(settings, name) <= 1:
        raise ValueError(f"{name} must be between 0 and 1, got {getattr(settings, name)}")


def weighted_sum(loss_cls: Tensor, loss_loc: Tensor, loc_weight: Tensor | float = 1.0) -> dict[str, Tensor]:
    """The usual two parts and their sum."""
    loss = loss_cls + (loc_weight * loss_loc).to(loss_cls.dtype)
    return {"loss": loss, "loss_cls": loss_cls, "loss_loc": loss_loc}


def equal_parts(loss_cls: Tensor, loss_loc: Tensor) -> Tensor:
    """Weight that makes the localisation part as large as the classification part in this very step."""
    loss_cls, loss_loc = loss_cls.detach(), loss_loc.detach()
    return torch.where(loss_loc > 0, loss_cls / loss_loc, 1.0)
