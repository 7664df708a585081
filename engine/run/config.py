"""Experiment configuration: one YAML file (on at most one chain of `base:` files) plus KEY=VALUE overrides.

`Config` and its groups hold every key's default, unit and range. The `model` and `loss` groups belong to the
detector and are defined there. Everything is validated before anything is built.
"""

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from data.loader import SIZE_DIVISOR
from data.synthetic.shapes import IMAGE_SIZE, MIN_IMAGE_SIZE, NUM_IMAGES
from detector import LossConfig, ModelConfig


class ConfigError(ValueError):
    """A configuration that cannot be used; the message is one line for the user."""

    exit_status = 2


class _Group(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class GenerateConfig(_Group):
    """Size of the generated shapes data set that is written to `data.root` where it is missing."""

    train: int = Field(NUM_IMAGES["train"], ge=1)
    val: int = Field(NUM_IMAGES["val"], ge=1)
    test: int = Field(NUM_IMAGES["test"], ge=1)
    image_size: int = Field(IMAGE_SIZE, ge=MIN_IMAGE_SIZE)  # pixels
    seed: int = Field(0, ge=0, lt=2**63)


class DataConfig(_Group):
    root: str = "datasets/coco"
    train_split: str = "train2017"
    val_split: str = "val2017"
    test_split: str | None = None
    classes: list[str] | None = None  # category names to use; null: all
    generate: GenerateConfig | None = None
    image_size: int | list[int] = 512  # pixels: S for S×S, or [height, width]; training images are resized to it
    # in its place, at the image's own aspect ratio: short side, or [lowest, highest] to draw it from for each image
    short_side: int | list[int] | None = None
    long_side: int | None = Field(None, ge=SIZE_DIVISOR)  # upper limit with short_side, pixels
    augmentation: Literal["ssd", "flip", "hvflip"] = "ssd"
    batch_size: int = Field(32, ge=1)  # images per optimizer step, over all processes
    accumulate: int = Field(1, ge=1)  # micro-batches per step and process
    workers: int = Field(4, ge=0)  # loader processes per training process
    cache: bool = False  # keep the training images' files, as they are stored, in the memory of each training process
    crowd: Literal["background", "ignore"] = "background"
    on_error: Literal["stop", "skip"] = "stop"

    @field_validator("image_size")
    @classmethod
    def _two_sides(cls, value: int | list[int]) -> int | list[int]:
        sides = [value, value] if isinstance(value, int) else value
        if len(sides) != 2 or min(sides) < SIZE_DIVISOR:
            raise ValueError(f"must be one side or [height, width], each at least {SIZE_DIVISOR} pixels")
        return value

    @field_validator("short_side")
    @classmethod
    def _range_of_sides(cls, value: int | list[int] | None) -> int | list[int] | None:
        sides = value if isinstance(value, list) else [SIZE_DIVISOR if value is None else value] * 2
        if len(sides) != 2 or not SIZE_DIVISOR <= sides[0] <= sides[1]:
            raise ValueError(f"must be one side or [lowest, highest], each at least {SIZE_DIVISOR} pixels")
        return value

    @model_validator(mode="after")
    def _training_sides_together(self) -> "DataConfig":
        if (self.short_side is None) != (self.long_side is None):
            raise ValueError("short_side and long_side are given together or not at all")
        if self.short_side is not None and self.short_sides[1] > self.long_side:
            raise ValueError("short_side must not exceed long_side")
        return self

    @field_validator("classes")
    @classmethod
    def _distinct_classes(cls, value: list[str] | None) -> list[str] | None:
        if value is not None and (not value or len(set(value)) < len(value)):
            raise ValueError("must be distinct category names, or null for all")
        return value

    @property
    def train_size(self) -> tuple[int, int]:
        """(height, width) of training images."""
        if isinstance(self.image_size, int):
            return self.image_size, self.image_size
        return self.image_size[0], self.image_size[1]

    @property
    def short_sides(self) -> tuple[int, int] | None:
        """(lowest, highest) short side of training images; None where image_size says their size."""
        if self.short_side is None or isinstance(self.short_side, int):
            return None if self.short_side is None else (self.short_side, self.short_side)
        return self.short_side[0], self.short_side[1]


class OptimizerConfig(_Group):
    lr: float = Field(0.008, gt=0)  # for base_batch_size images per step
    base_batch_size: int = Field(32, ge=1)
    scale_lr: bool = True  # scale learning rate and warm-up when data.batch_size differs from base_batch_size
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(1e-4, ge=0)
    clip_grad_norm: float | None = Field(None, gt=0)
    ema_decay: float | None = Field(None, gt=0, lt=1)  # weight EMA, used by evaluation; null: none


class ScheduleConfig(_Group):
    epochs: int = Field(100, ge=1)
    kind: Literal["step", "cosine"] = "step"
    milestones: list[int] = [60, 80]  # epochs after which the step schedule multiplies the rate by gamma
    gamma: float = Field(0.1, gt=0, le=1)
    warmup_steps: int = Field(500, ge=0)  # for base_batch_size
    warmup_factor: float = Field(1e-3, gt=0, le=1)
    max_steps: int | None = Field(None, ge=1)  # stop after so many steps in total; the schedule stays

    @field_validator("milestones")
    @classmethod
    def _ascending(cls, value: list[int]) -> list[int]:
        if any(late <= early for early, late in zip([0, *value], value, strict=False)):
            raise ValueError("must be epochs in ascending order, from 1 on")
        return value


class EvaluationConfig(_Group):
    every: int = Field(1, ge=1)  # epochs
    batch_size: int = Field(8, ge=1)  # images per process
    short_side: int | None = Field(None, ge=SIZE_DIVISOR)  # pixels; null: data.image_size exactly
    long_side: int | None = Field(None, ge=SIZE_DIVISOR)  # upper limit, pixels
    # torchvision: its rounding of sizes, and pixel values that are not rounded
    resize: Literal["paper", "torchvision"] = "paper"
    # test-time augmentation: detections on all of these are merged by NMS
    flip: bool = False  # the mirrored image too
    extra_short_sides: list[
        Annotated[int, Field(ge=SIZE_DIVISOR)]
    ] = []  # the image at these sizes too; long_side grows along

    @model_validator(mode="after")
    def _sides_together(self) -> "EvaluationConfig":
        if (self.short_side is None) != (self.long_side is None):
            raise ValueError("short_side and long_side are given together or not at all")
        if self.short_side is not None and self.short_side > self.long_side:
            raise ValueError("short_side must not exceed long_side")
        if self.short_side is None and (self.extra_short_sides or self.resize == "torchvision"):
            raise ValueError("extra_short_sides and resize: torchvision need short_side and long_side")
        return self


class RunConfig(_Group):
    dir: str = "runs"
    name: str | None = Field(None, pattern=r"^[\w][\w.+=-]*$")  # null: the config file's name
    seed: int = Field(0, ge=0, lt=2**63)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    # of training (evaluation is float32): auto is bfloat16 where the hardware multiplies it
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    compile: bool = False  # torch.compile of the network; needs a C++ compiler, pays in long runs
    log_every: int = Field(10, ge=1)  # steps between TensorBoard points
    diagnose: bool = False  # watch for known causes of a run that does not converge: docs/diagnose.md
    checkpoint_every: int | None = Field(None, ge=1)  # steps; an epoch's end always writes one
    checkpoint_minutes: float | None = Field(None, gt=0)
    keep_checkpoints: int = Field(2, ge=1)  # last.pt and those before it: last.1.pt, ...
    # how long a process waits for the others before it gives up; evaluation's metrics take one process minutes
    collective_minutes: float = Field(10.0, gt=0)
    max_bad_steps: int = Field(10, ge=1)  # steps in a row without a finite loss and gradient before giving up


class Config(_Group):
    """One experiment. Immutable; `to_dict` gives the plain form that checkpoints and run folders keep."""

    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    data: DataConfig = DataConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    run: RunConfig = RunConfig()

    def to_dict(self) -> dict[str, Any]:
        return self.model_dump(mode="json")


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-4 as a number, as YAML 1.2 does, and not as a string."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Reads an experiment file, applies `KEY=VALUE` overrides and validates the result.

    Args:
        path: YAML file; its optional `base:` names a file, relative to it, that it overrides.
        overrides: dotted keys with YAML values, such as "optimizer.lr=0.004".
    Raises:
        ConfigError: file missing, empty or broken; unknown key; wrong type; impossible value.
    """
    path = Path(path)
    values = _read_yaml(path, seen=())
    run = values.setdefault("run", {})
    if isinstance(run, dict) and run.get("name") is None:
        run["name"] = path.stem
    return parse_config(values, str(path), overrides)


def parse_config(values: dict[str, Any], source: str, overrides: Sequence[str] = ()) -> Config:
    """Validates a plain nested dict; `source` names it in error messages. Raises ConfigError."""
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key:
            raise ConfigError(f"{override!r}: not of the form KEY=VALUE, such as optimizer.lr=0.004")
        try:
            value = yaml.load(text, _Loader)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise ConfigError(f"command line: {key}: not a YAML value: {text!r}") from error
        _reject_unknown_key(key, "command line")
        nested: dict[str, Any] | Any = value
        for part in reversed(key.split(".")):
            nested = {part: nested}
        values = _merge(values, nested)
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        overridden = [override.partition("=")[0] for override in overrides]
        raise ConfigError(_first_problem(error, values, source, overridden)) from error


def _read_yaml(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in seen:
        raise ConfigError(f"{path}: base: the files name each other in a circle; remove one `base:`")
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config file; the shipped ones are in configs/") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise ConfigError(f"{path}: cannot be read as a config file: {reason}") from error
    try:
        values = yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: an impossible date
        mark = getattr(error, "problem_mark", None)
        line = f" in line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "unexpected character"
        raise ConfigError(f"{path}: not valid YAML{line}: {problem}") from error
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
    return _merge(_read_yaml(path.parent / base, (*seen, path.resolve())), values)


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _dotted_keys(values: dict[Any, Any], prefix: str = "") -> list[str]:
    keys = []
    for key, value in values.items():
        keys.append(f"{prefix}{key}")
        if isinstance(value, dict):
            keys.extend(_dotted_keys(value, f"{prefix}{key}."))
    return keys


def _known_keys(group: type[BaseModel] = Config, prefix: str = "") -> list[str]:
    keys = []
    for name, field in group.model_fields.items():
        keys.append(f"{prefix}{name}")
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                keys.extend(_known_keys(kind, f"{prefix}{name}."))
    return keys


def _reject_unknown_key(key: str, source: str) -> None:
    known = _known_keys()
    if key in known:
        return
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    last = key.rsplit(".", 1)[-1]
    same_name = [name for name in known if name.rsplit(".", 1)[-1] == last]  # right key in the wrong group
    same_name.sort(key=lambda name: name.count("."))
    nearest = same_name or near
    hint = f"did you mean {nearest[0]}?" if nearest else "the groups are " + ", ".join(Config.model_fields)
    raise ConfigError(f"{source}: {key}: unknown key; {hint}")


def _first_problem(error: ValidationError, values: dict[str, Any], source: str, overridden: list[str]) -> str:
    problems = error.errors()
    location = [str(part) for part in problems[0]["loc"]]
    known = _known_keys()
    while location and ".".join(location) not in known:  # drop pydantic's names of union members and list positions
        location.pop()
    given: Any = values
    for part in location:
        given = given.get(part) if isinstance(given, dict) else given
    message = problems[0]["msg"].removeprefix("Value error, ")
    key = ".".join(location)
    return f"{'command line' if key in overridden else source}: {key}: {message} (found {given!r})"
