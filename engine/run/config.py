"""Experiment configuration: one YAML file (on at most one chain of `base:` files) plus KEY=VALUE overrides.

Everything is validated before anything is built. `engine.run.groups` has most keys.
"""

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError, model_validator

from data.errors import DatasetError
from data.yaml_files import parse_yaml, read_yaml
from detector.config import LossField, loss_settings
from detector.families import (
    FAMILIES,
    ModelField,
    family_name,
    model_settings,
    require_loss_of_family,
    require_start,
    usual_loss,
    with_own_defaults,
)
from engine.run.groups import DataConfig, EvaluationConfig, Group, OptimizerConfig, RunConfig, ScheduleConfig
from losses.table import LOSSES


class ConfigError(ValueError):
    """A configuration that cannot be used; the message is one line for the user."""

    exit_status = 2


class Config(Group):
    """One experiment. Immutable; `to_dict` gives the plain form that checkpoints and run folders keep."""

    model: ModelField = model_settings({})
    loss: LossField = loss_settings({})
    data: DataConfig = DataConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    run: RunConfig = RunConfig()

    @model_validator(mode="before")
    @classmethod
    def _own_defaults(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        model, loss = with_own_defaults(values.get("model", {}), values.get("loss", {}))
        return values | {"model": model, "loss": loss}

    def to_dict(self) -> dict[str, Any]:
        return self.model_dump(mode="json")


def load_config(path: str | Path, overrides: Sequence[str] = (), below: Mapping[str, Any] | None = None) -> Config:
    """Reads an experiment file, applies `KEY=VALUE` overrides and validates the result.

    Args:
        path: YAML file; its optional `base:` names a file, relative to it, that it overrides.
        overrides: dotted keys with YAML values, such as "optimizer.lr=0.004".
        below: nested values for keys that neither file nor overrides name, in place of the defaults.
    Raises:
        ConfigError: file missing, empty or broken; unknown key; wrong type; impossible value.
    """
    path = Path(path)
    values = _read_yaml(path, seen=())
    config = parse_config(values, str(path), overrides, name=path.stem)
    if not below:
        return config
    # a loss's keys are for that loss; the name beside them must not choose it
    kept = {group: keys for group, keys in below.items() if keys.get("name", config.loss.name) == config.loss.name}
    # said once more where an override chose the loss: keys of another one would be dropped
    chosen = merge_files(values, {"loss": {"name": config.loss.name}})
    return parse_config(merge_files(kept, chosen), str(path), overrides, name=path.stem)


def parse_config(values: dict[str, Any], source: str, overrides: Sequence[str] = (), name: str | None = None) -> Config:
    """Validates a plain nested dict. Raises ConfigError.

    Args:
        source: names it in error messages.
        name: that a `run.name` of null stands for.
    """
    given: dict[str, Any] = {}
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key:
            raise ConfigError(f"{override!r}: not of the form KEY=VALUE, such as optimizer.lr=0.004")
        try:
            value = parse_yaml(text)
        except ValueError as error:
            raise ConfigError(f"command line: {key}: not a YAML value: {text!r}") from error
        _reject_unknown_key(key, "command line")
        nested: dict[str, Any] | Any = value
        for part in reversed(key.split(".")):
            nested = {part: nested}
        given = _merge(given, nested)
    values = merge_files(values, given)
    run = values.get("run", {})
    if isinstance(run, dict) and run.get("name") is None and name is not None:
        values = values | {"run": run | {"name": name}}
    overridden = [override.partition("=")[0] for override in overrides]
    _reject_keys_of_others(values, source, overridden)
    try:
        config = Config.model_validate(values)
        require_loss_of_family(config.model, config.loss)
        require_start(config.model)
    except ValidationError as error:
        raise ConfigError(_first_problem(error, values, source, overridden)) from error
    except ValueError as error:
        raise ConfigError(f"{source}: {error}") from error
    return config


def _read_yaml(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in seen:
        raise ConfigError(f"{path}: base: the files name each other in a circle; remove one `base:`")
    if not os.path.exists(path):
        raise ConfigError(f"{path}: no such config file; the shipped ones are in configs/")
    try:
        values = read_yaml(path)
    except DatasetError as error:
        raise ConfigError(str(error)) from error
    if values is None:
        raise ConfigError(f"{path}: the config file is empty; see configs/quickstart.yaml for an example")
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected groups of `key: value` lines, found a {type(values).__name__}")
    base = values.pop("base", None)
    for key in _dotted_keys(values):
        _reject_unknown_key(key, str(path))
    if base is None:
        return values
    if not isinstance(base, str):
        raise ConfigError(f"{path}: base: expected a file name, found {base!r}")
    return merge_files(_read_yaml(path.parent / base, (*seen, path.resolve())), values)


def merge_files(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Puts the values of a file or command line above those below it.

    Another `loss.name` drops the former loss's keys: they were chosen for it. Another `model.family` drops those that
    it does not have.
    """
    below = dict(below)
    loss = above.get("loss")
    if isinstance(loss, dict) and loss.get("name", _loss_name(below)) != _loss_name(below):
        below.pop("loss", None)
    model = above.get("model")
    family = str(model.get("family")) if isinstance(model, dict) else ""  # str: what is wrong is said later
    if family in FAMILIES and isinstance(below.get("model"), dict):
        keys = FAMILIES[family].config.model_fields
        below["model"] = {key: value for key, value in below["model"].items() if key in keys}
    return _merge(below, above)


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _loss_name(values: Mapping[str, Any]) -> Any:
    group, usual = values.get("loss"), usual_loss(values.get("model", {}))
    return group.get("name", usual) if isinstance(group, dict) else usual


def _dotted_keys(values: dict[Any, Any], prefix: str = "") -> list[str]:
    keys = []
    for key, value in values.items():
        keys.append(f"{prefix}{key}")
        if isinstance(value, dict):
            keys.extend(_dotted_keys(value, f"{prefix}{key}."))
    return keys


def known_keys() -> list[str]:
    """Dotted names of all groups and keys, those of every loss and family included."""
    keys = []
    for group, field in Config.model_fields.items():
        keys.append(group)
        if group == "loss":
            names = [name for loss in LOSSES.values() for name in loss.Settings.key_names()]
        elif group == "model":
            names = [name for family in FAMILIES.values() for name in _keys_of_group(family.config)]
        else:
            names = list(_keys_of_group(field.annotation))
        keys += [f"{group}.{name}" for name in dict.fromkeys(names)]
    return keys


def _keys_of_group(group: Any, prefix: str = "") -> Iterator[str]:
    for name, field in group.model_fields.items():
        yield f"{prefix}{name}"
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from _keys_of_group(kind, f"{prefix}{name}.")


def _reject_keys_of_others(values: Mapping[str, Any], source: str, overridden: Sequence[str]) -> None:
    """Raises ConfigError for a key that only other losses, or other families, have."""
    model = values.get("model")
    family = family_name(model if isinstance(model, dict) else {})
    owners = {
        "loss": ("name", _loss_name(values), {name: loss.Settings.key_names() for name, loss in LOSSES.items()}),
        "model": ("family", family, {name: tuple(f.config.model_fields) for name, f in FAMILIES.items()}),
    }
    for group, (chooser, chosen, keys) in owners.items():
        content = values.get(group)
        if not isinstance(content, dict) or str(chosen) not in keys:
            continue
        for key in content:
            having = [name for name, own in keys.items() if key in own]
            if key not in keys[chosen] and having:
                where = "command line" if f"{group}.{key}" in overridden else source
                raise ConfigError(
                    f"{where}: {group}.{key}: {group}.{chooser}={chosen} has no such key, {', '.join(having)} "
                    f"{'has' if len(having) == 1 else 'have'}; remove it, or choose another {group}.{chooser}"
                )


def _reject_unknown_key(key: str, source: str) -> None:
    known = known_keys()
    if key in known:
        return
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    last = key.rsplit(".", 1)[-1]
    names = last, "".join(word[:1] for word in last.split("_"))  # of the right key in a wrong group, or its initials
    same_name = [name for name in known if name.rsplit(".", 1)[-1] in names]
    same_name.sort(key=lambda name: name.count("."))
    nearest = same_name or near
    hint = f"did you mean {nearest[0]}?" if nearest else "the groups are " + ", ".join(Config.model_fields)
    raise ConfigError(f"{source}: {key}: unknown key; {hint}")


def _first_problem(error: ValidationError, values: dict[str, Any], source: str, overridden: list[str]) -> str:
    problem, known = error.errors()[0], known_keys()
    key = ""
    given: Any = values
    for part in map(str, problem["loc"]):  # beside keys it has pydantic's names of union members and list positions
        name = f"{key}.{part}" if key else part
        if name in known:
            key, given = name, given.get(part) if isinstance(given, dict) else given
    message = problem["msg"].removeprefix("Value error, ")
    subject, _, rest = message.partition(" ")
    if f"{key}.{subject}" in known and rest.startswith("must"):  # said by the group about one of its keys
        key, message = f"{key}.{subject}", rest
        given = given.get(subject) if isinstance(given, dict) else given
    if key == "run.name" and problem["type"] == "string_pattern_mismatch":
        message = "has other signs than letters, digits and . _ + = -; rename the file or folder, or give run.name"
    if problem["type"] in ("union_tag_invalid", "union_tag_not_found"):
        chooser, choices = ("name", LOSSES) if key == "loss" else ("family", FAMILIES)
        if isinstance(given, dict):
            key, given, message = f"{key}.{chooser}", given.get(chooser), f"must be one of {', '.join(choices)}"
        else:
            message = "must be a group of `key: value` lines"
    if problem["type"] == "string_type":
        message += "; YAML reads no, off, 7 and dates as other things than text: write text in quotes"
    if problem["type"] == "list_type":
        message += ", such as [a, b]"
    return f"{'command line' if key in overridden else source}: {key}: {message} (found {given!r})"
