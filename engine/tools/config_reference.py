"""Every key of a configuration as tables in Markdown: type, range, default and meaning, read from the settings classes.

The meaning of a key is the string literal below its field. A key without one is an error, so that none is added unsaid.
"""

import ast
import dataclasses
import inspect
import textwrap
import types
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from detector.config import DEFAULT_LOSS, ModelConfig
from detector.families import DEFAULT_FAMILY, FAMILIES
from engine.run.config import Config
from losses.loss import LossSettings
from losses.table import LOSSES

HEAD = """# Every key of a configuration

<!-- Written by `python scripts/dev/config_reference.py` from the settings classes; change those. -->

A configuration is one YAML file of seven groups (`model`, `loss`, `data`, `optimizer`, `schedule`, `evaluation`,
`run`), each a mapping of keys. `base: other.yaml` takes over what another file says. On the command line a key is
written with its group, as in `optimizer.lr=0.004`. Unknown keys, wrong types and impossible values are refused, and so
is a key that the chosen loss or family does not have. A default that depends on `loss.name` or `model.family` is
followed by the exceptions, as in `0.05`; dr: `0.2`.
"""
BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
NAMES = {bool: "true or false", int: "integer", float: "number", str: "text", types.NoneType: "null"}


class Key(NamedTuple):
    """A row: name within its group, type with range, default as YAML, and meaning."""

    name: str
    type: str
    default: str
    meaning: str


def config_reference() -> str:
    """The content of docs/config.md. Raises ValueError: a key has no meaning."""
    parts = [HEAD]
    for group, field in Config.model_fields.items():
        if group == "model":
            parts += _model_sections()
        elif group == "loss":
            parts += _loss_sections()
        else:
            parts.append(_section(f"## {group}", group, model_keys(field.annotation)))
    return "\n".join(parts)


def _model_sections() -> Iterator[str]:
    shared = list(model_keys(ModelConfig))
    keys = [_chooser(shared[0], FAMILIES, DEFAULT_FAMILY), *(_of_losses(key, LOSSES) for key in shared[1:])]
    yield _section("## model", "model", keys)
    for name, family in FAMILIES.items():
        # beside keys of its own those that it has other values or another default of
        own = [key for key in model_keys(family.config) if key not in shared and key.name != "family"]
        own = [_of_losses(key, family.losses) for key in own]
        yield _section(f"### model.family: {name}", "model", own, inspect.getdoc(family.config))


def _loss_sections() -> Iterator[str]:
    shared = list(settings_keys(LossSettings))
    chooser = _of_families(_chooser(shared[0], LOSSES, DEFAULT_LOSS), LOSSES)
    yield _section("## loss", "loss", [chooser, *shared[1:]])
    known = {key.name for key in shared}
    for name, loss in LOSSES.items():
        own = [_of_families(key, [name]) for key in settings_keys(loss.Settings) if key.name not in known]
        yield _section(f"### loss.name: {name}", "loss", own, inspect.getdoc(loss.Settings))


def _of_losses(key: Key, losses: Iterable[str]) -> Key:
    """The key of `model` with what it is by default with each of these losses, where that is something else."""
    return _with_exceptions(key, [(name, LOSSES[name].Settings.model_defaults) for name in losses])


def _of_families(key: Key, losses: Iterable[str]) -> Key:
    """The key of `loss` with what it is by default in each family that takes one of these losses."""
    taking = [(name, family) for name, family in FAMILIES.items() if not set(losses).isdisjoint(family.losses)]
    return _with_exceptions(key, [(name, family.loss_defaults) for name, family in taking])


def _with_exceptions(key: Key, defaults: Iterable[tuple[str, Mapping[str, Any]]]) -> Key:
    others = [(name, _default(values[key.name])) for name, values in defaults if key.name in values]
    named = [f"; {name}: {default}" for name, default in others if default != key.default]
    return key._replace(default=key.default + "".join(named))


def _chooser(key: Key, choices: Iterable[str], default: str) -> Key:
    return key._replace(type=", ".join(choices), default=f"`{default}`")


def _section(heading: str, group: str, keys: Iterable[Key], summary: str | None = None) -> str:
    lines = [heading, ""] + ([summary.splitlines()[0], ""] if summary else [])
    rows = [f"| `{group}.{key.name}` | {key.type} | {key.default} | {key.meaning} |" for key in keys]
    table = ["| key | type and range | default | meaning |", "|---|---|---|---|", *rows]
    return "\n".join([*lines, *(table if rows else ["No keys of its own."]), ""])


def model_keys(group: Any, prefix: str = "") -> Iterator[Key]:
    """The keys of a pydantic class, those of groups within it below it. Raises ValueError: one has no meaning."""
    for name, field in group.model_fields.items():
        if field.description is None:
            raise ValueError(f"{group.__name__}.{name} has no meaning: write it as a string below the field")
        yield Key(prefix + name, _type_of(field), _default(field.default), _one_line(field.description))
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from model_keys(kind, f"{prefix}{name}.")


def settings_keys(settings: type[LossSettings]) -> Iterator[Key]:
    """The keys of a loss, whose class is a dataclass. Raises ValueError: a key has no meaning."""
    hints, meanings = get_type_hints(settings, include_extras=True), _meanings(settings)
    for field in dataclasses.fields(settings):
        if field.name not in meanings:
            raise ValueError(f"{settings.__name__}.{field.name} has no meaning: write it as a string below the field")
        default = PydanticUndefined if field.default is dataclasses.MISSING else field.default
        yield Key(field.name, _type_text(hints[field.name]), _default(default), _one_line(meanings[field.name]))


def _meanings(settings: type) -> dict[str, str]:
    """The string literals below the fields of a class and of its bases."""
    meanings: dict[str, str] = {}
    for base in reversed(settings.__mro__[:-1]):
        definition = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(definition, ast.ClassDef)
        for field, below in pairwise(definition.body):
            if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
                meanings[ast.unparse(field.target)] = ast.literal_eval(below.value)
    return meanings


def _type_of(field: FieldInfo) -> str:
    return _with_range(_type_text(field.annotation), field.metadata)


def _type_text(kind: Any) -> str:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _with_range(_type_text(arguments[0]), arguments[1:])
    if origin in (Union, types.UnionType):
        return " or ".join(map(_type_text, arguments))
    if origin is Literal:
        return ", ".join("null" if value is None else str(value) for value in arguments)
    if origin in (list, tuple):
        return f"list of: {_type_text(arguments[0])}"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "group"
    return NAMES[kind]


def _with_range(text: str, metadata: Iterable[Any]) -> str:
    limits: list[str] = []
    parts = [part for item in metadata for part in (item.metadata if isinstance(item, FieldInfo) else [item])]
    most = next((part.max_length for part in parts if getattr(part, "max_length", None)), None)
    for part in parts:
        for name, sign in BOUNDS.items():
            if (bound := getattr(part, name, None)) is not None:
                limits.append(f"{sign} {'2^63' if bound == 2**63 else format(bound, 'g')}")
        if factor := getattr(part, "multiple_of", None):
            limits.append(f"a multiple of {factor}")
        if pattern := getattr(part, "pattern", None):
            limits.append(f"of the form `{pattern}`")
        if length := getattr(part, "min_length", None):
            limits.append(f"{'exactly' if length == most else 'at least'} {length} of them")
    return f"{text}, {' and '.join(limits)}" if limits else text


def _default(value: Any) -> str:
    if value is PydanticUndefined:
        return "—"
    if isinstance(value, tuple):
        value = list(value)
    text = yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("...\n").strip()
    return f"`{text}`"


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
