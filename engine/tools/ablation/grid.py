"""The grid of an ablation: which runs there are, and what is known of one that ended."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, model_validator

from data.errors import DatasetError
from data.yaml_files import read_yaml
from engine.run.config import Config, ConfigError, load_config

STRICT = ConfigDict(extra="forbid", frozen=True)


class Search(BaseModel):
    """How learning rates are searched apart from the runs that are compared.

    Attributes:
        overrides: KEY=VALUE of these runs alone, such as half the length.
        seeds: the first for every rate, the others for rates that tie with a variant's best.
    """

    model_config = STRICT

    overrides: list[str] = []
    seeds: list[int] = Field(min_length=1)


class Variant(BaseModel):
    """What is compared; in the file a list is its overrides.

    Attributes:
        config: experiment in place of the grid's; in the file relative to it.
        overrides: KEY=VALUE of its cells.
        learning_rates: in place of the grid's.
    """

    model_config = STRICT

    config: Path | None = None
    overrides: list[str] = []
    learning_rates: list[float] | None = Field(None, min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _overrides_alone(cls, value: Any) -> Any:
        return {"overrides": value} if isinstance(value, list) else value


class Grid(BaseModel):
    """The runs of `scripts/ablation.py`: every variant at every learning rate with one seed, and at the rate with the
    best val AP with all seeds.

    Attributes:
        config: experiment that the cells override; in the file relative to it.
        overrides: KEY=VALUE of all cells.
        learning_rates: tried for each variant, ascending or not.
        search: of the rates by runs of their own; null: by the final runs of the first seed.
        seeds: of the final comparison.
        variants: name -> what its cells have of their own.
        reference: variant that the others are compared with.
        claims: variants that the reference is claimed to be ahead of; the tests of scripts/claims.py.
        lengths: epochs to train every variant for, milestones in proportion; its rate is chosen at each. Not tested.
    """

    model_config = STRICT

    config: Path
    overrides: list[str] = []
    learning_rates: list[float] = Field(min_length=1)
    search: Search | None = None
    seeds: list[int] = Field(min_length=1)
    variants: dict[str, Variant] = Field(min_length=1)
    reference: str
    claims: list[str] = []
    lengths: list[PositiveInt] = []

    @model_validator(mode="after")
    def _has_reference(self) -> "Grid":
        if self.reference not in self.variants:
            raise ValueError(f"reference {self.reference!r} is none of the variants")
        for variant in self.claims:
            if variant not in self.variants or variant == self.reference:
                raise ValueError(f"claims: {variant!r} is none of the other variants")
        if self.lengths and (self.search or self.claims or len(set(self.lengths)) < len(self.lengths)):
            raise ValueError("lengths must differ, and go without search and claims")
        return self

    @property
    def size(self) -> int:
        """Number of cells, less those that break ties."""
        finals = len(self.seeds) if self.search else len(self.seeds) - 1
        return len(self.epochs) * sum(len(self.rates(variant)) + finals for variant in self.variants)

    @property
    def epochs(self) -> list[int] | list[None]:
        """The lengths of its cells; None: that of the configuration."""
        return self.lengths or [None]

    def rates(self, variant: str) -> list[float]:
        """Learning rates that are tried for a variant."""
        return self.variants[variant].learning_rates or self.learning_rates

    def config_of(self, variant: str) -> Path:
        """The experiment that a variant's cells override."""
        return self.variants[variant].config or self.config

    def cell_config(self, cell: "Cell", folder: Path) -> tuple[list[str], Config]:
        """Overrides of a cell whose run lies in `folder`, and what they make. Raises ConfigError."""
        overrides = [
            *self.overrides,
            *self.variants[cell.variant].overrides,
            *(self.search.overrides if self.search and cell.of_search else ()),
        ]
        if cell.epochs is not None:
            schedule = load_config(self.config_of(cell.variant), overrides).schedule
            milestones = {max(1, milestone * cell.epochs // schedule.epochs) for milestone in schedule.milestones}
            overrides += [f"schedule.epochs={cell.epochs}", f"schedule.milestones={sorted(milestones)}"]
        overrides += [
            f"optimizer.lr={cell.learning_rate}",
            f"run.seed={cell.seed}",
            f"run.dir={json.dumps(str(folder))}",  # a YAML value, where " #" and ": " mean something
            f"run.name={cell.name}",
        ]
        return overrides, load_config(self.config_of(cell.variant), overrides)


@dataclass(frozen=True)
class Cell:
    """One training run of a grid; `of_search`: it serves the choice of the rate alone; `epochs`: of several lengths."""

    variant: str
    learning_rate: float
    seed: int
    of_search: bool = False
    epochs: int | None = None

    @property
    def name(self) -> str:
        """Name of its folder."""
        variant = re.sub("[^a-z0-9]+", "-", self.variant.lower()).strip("-")
        length = "" if self.epochs is None else f"_{self.epochs}epochs"
        return f"{'search_' if self.of_search else ''}{variant}_lr{self.learning_rate:g}_seed{self.seed}{length}"


@dataclass(frozen=True)
class Result:
    """Results of a finished cell.

    Attributes:
        history: the evaluations on val while training, oldest first.
        test: `METRICS` on the test split, None where the cell was not evaluated there.
        step_ms: median time of a step in milliseconds.
        clipped: share of the steps whose gradient was clipped, None where it is not known.
        arithmetic: GPU or "cpu", and precision, such as "cpu, bfloat16".
    """

    cell: Cell
    history: list[dict[str, Any]]
    test: dict[str, float] | None
    step_ms: float
    clipped: float | None = None
    arithmetic: str = "unknown"

    @property
    def val_ap(self) -> float:
        return self.history[-1]["AP"]

    @property
    def tested(self) -> dict[str, float]:
        """`test` of a cell that was evaluated there."""
        assert self.test is not None
        return self.test


Results = Mapping[Cell, Result]


def load_grid(path: str | Path) -> Grid:
    """Reads a grid file. Raises ConfigError: missing, broken, unknown keys, impossible values."""
    path = Path(path)
    try:
        grid = Grid.model_validate(read_yaml(path))
    except DatasetError as error:
        raise ConfigError(f"{error}; see configs/ablations/") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "grid"
        raise ConfigError(f"{path}: {place}: {first['msg']}; see configs/ablations/ for the keys") from error
    variants = {
        name: each if each.config is None else each.model_copy(update={"config": path.parent / each.config})
        for name, each in grid.variants.items()
    }
    grid = grid.model_copy(update={"config": path.parent / grid.config, "variants": variants})
    names = [cell.name for cell in all_cells(grid)]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigError(
            f"{path}: two cells would be called {twice}: rates and seeds must differ, and names of variants in the "
            "letters a to z or in digits"
        )
    return grid


def all_cells(grid: Grid) -> list[Cell]:
    """Every cell that the grid could come to."""
    kinds = [(False, grid.seeds), *([(True, grid.search.seeds)] if grid.search else [])]
    return [
        Cell(variant, rate, seed, of_search, epochs)
        for of_search, seeds in kinds
        for epochs in grid.epochs
        for variant, rate in _settings(grid)
        for seed in seeds
    ]


def search_cells(grid: Grid) -> list[Cell]:
    """Every variant at every learning rate and length, with the first seed."""
    seed, of_search = (grid.search.seeds[0], True) if grid.search else (grid.seeds[0], False)
    return [cell for cell in all_cells(grid) if (cell.seed, cell.of_search) == (seed, of_search)]


def _settings(grid: Grid) -> list[tuple[str, float]]:
    """Every variant with each of its rates: the first rates of all, then the second ones."""
    rows = zip_longest(*map(grid.rates, grid.variants))
    return [
        (variant, rate) for row in rows for variant, rate in zip(grid.variants, row, strict=True) if rate is not None
    ]
