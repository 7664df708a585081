"""Ablations: a grid of variants, learning rates and seeds, and what its runs say."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from data.errors import DatasetError
from data.yaml_files import read_yaml
from engine.metrics.average_precision import precisions
from engine.metrics.coco_metrics import match_detections
from engine.metrics.lrp import lrp_curve
from engine.metrics.matching import UNMATCHED, Matches
from engine.run.config import Config, ConfigError, load_config

METRICS = ("AP", "AP50", "AP75", "AP90", "oLRP", "oLRP_loc", "oLRP_fp", "oLRP_fn", "rho")
# 97.5 % quantiles of Student's t for 1, 2, … degrees of freedom
T_QUANTILES = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


class Grid(BaseModel):
    """The runs of `scripts/ablation.py`: every variant at every learning rate with the first seed, and at the rate with
    the best val AP with the other seeds.

    Attributes:
        config: experiment that the cells override; in the file relative to it.
        overrides: KEY=VALUE of all cells.
        learning_rates: tried for each variant.
        seeds: of the final comparison.
        variants: name -> KEY=VALUE overrides.
        reference: variant that the others are compared with.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    config: Path
    overrides: list[str] = []
    learning_rates: list[float] = Field(min_length=1)
    seeds: list[int] = Field(min_length=1)
    variants: dict[str, list[str]] = Field(min_length=1)
    reference: str

    @model_validator(mode="after")
    def _has_reference(self) -> "Grid":
        if self.reference not in self.variants:
            raise ValueError(f"reference {self.reference!r} is none of the variants")
        return self

    @property
    def size(self) -> int:
        """Number of cells."""
        return len(self.variants) * (len(self.learning_rates) + len(self.seeds) - 1)

    def cell_config(self, cell: "Cell", folder: Path) -> tuple[list[str], Config]:
        """Overrides of a cell whose run lies in `folder`, and what they make. Raises ConfigError."""
        overrides = [
            *self.overrides,
            *self.variants[cell.variant],
            f"optimizer.lr={cell.learning_rate}",
            f"run.seed={cell.seed}",
            f"run.dir={folder}",
            f"run.name={cell.name}",
        ]
        return overrides, load_config(self.config, overrides)


@dataclass(frozen=True)
class Cell:
    """One training run of a grid."""

    variant: str
    learning_rate: float
    seed: int

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"{re.sub('[^a-z0-9]+', '-', self.variant.lower()).strip('-')}_lr{self.learning_rate:g}_seed{self.seed}"


@dataclass(frozen=True)
class Result:
    """Results of a finished cell.

    Attributes:
        history: the evaluations on val while training, oldest first.
        test: METRICS on the test split, None where the cell was not evaluated there.
        step_ms: median time of a step in milliseconds.
    """

    cell: Cell
    history: list[dict[str, Any]]
    test: dict[str, float] | None
    step_ms: float

    @property
    def val_ap(self) -> float:
        return self.history[-1]["AP"]

    @property
    def tested(self) -> dict[str, float]:
        """`test` of a cell that was evaluated there."""
        assert self.test is not None
        return self.test


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
    grid = grid.model_copy(update={"config": path.parent / grid.config})
    names = [
        Cell(variant, rate, seed).name
        for variant in grid.variants
        for rate in grid.learning_rates
        for seed in grid.seeds
    ]
    if len(set(names)) < len(names):
        raise ConfigError(f"{path}: two variants have names that differ in punctuation only; rename one")
    return grid


def search_cells(grid: Grid) -> list[Cell]:
    """Every variant at every learning rate, with the first seed."""
    return [Cell(variant, rate, grid.seeds[0]) for rate in grid.learning_rates for variant in grid.variants]


def chosen_cells(grid: Grid, results: dict[Cell, Result]) -> list[Cell]:
    """Every variant with every seed at its best learning rate on val; left out if none of its runs ended."""
    cells = []
    for variant in grid.variants:
        searched = [cell for cell in search_cells(grid) if cell.variant == variant and cell in results]
        if searched:
            best = max(searched, key=lambda cell: results[cell].val_ap)
            cells += [Cell(variant, best.learning_rate, seed) for seed in grid.seeds]
    return cells


def metrics_with_correlation(annotations: Path, metrics: dict[str, Any], detections: Path) -> dict[str, float]:
    """METRICS of a run on its test split, from its metrics and its detections file."""
    matches = match_detections(annotations, detections)
    return {name: metrics[name] for name in METRICS if name in metrics} | {
        "AP90": ap_at(matches, 0.9),
        "rho": score_iou_correlation(matches),
    }


def ap_at(matches: Matches, iou: float) -> float:
    """COCO AP at one IoU threshold; NaN if no class has ground truth."""
    index = int(np.argmin(np.abs(matches.thresholds - iou)))
    precision = precisions(matches)[index]
    return float(precision[precision > -1].mean()) if (precision > -1).any() else math.nan


def score_iou_correlation(matches: Matches) -> float:
    """ρ: Pearson correlation of score and IoU over the true positives at IoU 0.5 of all classes; NaN below two."""
    class_scores: list[np.ndarray] = []
    class_ious: list[np.ndarray] = []
    for label in range(len(matches.truth.category_ids)):
        curve = lrp_curve(matches, label)
        if curve is not None:
            is_tp = curve.matched != UNMATCHED
            class_scores.append(curve.scores[is_tp])
            class_ious.append(1 - np.diff(curve.loc_error, prepend=0)[is_tp])
    scores, ious = (np.concatenate(values or [np.zeros(0)]) for values in (class_scores, class_ious))
    if len(scores) < 2 or scores.std() == 0 or ious.std() == 0:
        return math.nan
    return float(np.corrcoef(scores, ious)[0, 1])


def paired_difference(values: Sequence[float], reference: Sequence[float]) -> tuple[float, float | None]:
    """Mean of the differences of runs with the same seed, and half the width of its 95 % interval.

    The interval is Student's, of n differences: ± t sd / √n; None for a single one.
    """
    differences = np.asarray(values) - np.asarray(reference)
    count = len(differences)
    if count < 2:
        return float(differences.mean()), None
    return float(differences.mean()), float(_t_quantile(count - 1) * differences.std(ddof=1) / math.sqrt(count))


def _t_quantile(freedom: int) -> float:
    if freedom <= len(T_QUANTILES):
        return T_QUANTILES[freedom - 1]
    z = 1.959964  # the normal quantile, and two terms of the Cornish-Fisher expansion
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


def markdown_table(grid: Grid, results: dict[Cell, Result]) -> str:
    """Test results of the chosen cells, mean ± standard deviation over the seeds, and the paired AP difference."""
    chosen = [cell for cell in chosen_cells(grid, results) if cell in results and results[cell].test is not None]
    by_variant = {variant: [cell for cell in chosen if cell.variant == variant] for variant in grid.variants}
    reference = {cell.seed: results[cell].tested["AP"] for cell in by_variant[grid.reference]}
    lines = [
        f"| loss | lr | seeds | {' | '.join(METRICS[:-1])} | ρ | ΔAP (95 %) | ms/step |",
        "|" + "---|" * (len(METRICS) + 5),
    ]
    for variant, cells in by_variant.items():
        if not cells:
            continue
        tests = [results[cell].tested for cell in cells]
        columns = [_mean_and_deviation([test[name] for test in tests]) for name in METRICS]
        paired = [cell for cell in cells if cell.seed in reference]
        difference = "" if variant == grid.reference or not paired else _difference(paired, results, reference)
        step_ms = np.median([results[cell].step_ms for cell in cells])
        lines.append(
            f"| {variant} | {cells[0].learning_rate:g} | {len(cells)} | {' | '.join(columns)} | {difference} "
            f"| {step_ms:.0f} |"
        )
    return "\n".join(lines)


def csv_rows(grid: Grid, results: dict[Cell, Result]) -> list[list[Any]]:
    """Header and one row for every finished cell."""
    chosen = set(chosen_cells(grid, results))
    rows: list[list[Any]] = [["variant", "learning_rate", "seed", "chosen", "val_AP", *METRICS, "step_ms"]]
    for cell, result in results.items():
        test = [None if result.test is None else result.test[name] for name in METRICS]
        rows.append(
            [cell.variant, cell.learning_rate, cell.seed, int(cell in chosen), result.val_ap, *test, result.step_ms]
        )
    return rows


def _mean_and_deviation(values: Sequence[float]) -> str:
    deviation = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{deviation}"


def _difference(cells: Sequence[Cell], results: dict[Cell, Result], reference: dict[int, float]) -> str:
    own = [results[cell].tested["AP"] for cell in cells]
    mean, half_width = paired_difference(own, [reference[cell.seed] for cell in cells])
    return f"{mean:+.3f}" + ("" if half_width is None else f" ± {half_width:.3f}")
