"""Whether the reference of each grid is ahead: intervals and tests of every claim, Holm's correction over all; and by
which of its parts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from engine.run.config import ConfigError
from engine.tools.ablation.cells import KeptCells
from engine.tools.ablation.choice import chosen_cells
from engine.tools.ablation.grid import Cell, Grid, Result
from engine.tools.ablation.statistics import (
    LEVEL,
    bootstrap_interval,
    bootstrap_means,
    bootstrap_p_value,
    holm,
    paired_difference,
    paired_p_value,
)
from engine.tools.ablation.tables import METRICS, difference_text

NOT_BEHIND = -0.01  # a lower end above it
PARTS = METRICS[1:]  # of which AP, the first, is made, or that say why


@dataclass(frozen=True)
class Claim:
    """The difference of the reference to another variant in AP on the test split, over n seeds.

    Attributes:
        claimed: else it is an effect with its intervals, and nothing is tested.
        planned: seeds of the grid; where some are missing there is no verdict.
        mean: of the paired differences.
        student, bootstrap: their 95 % intervals.
        student_p, bootstrap_p: two-sided.
        parts: each of PARTS -> mean of its paired differences, and half the width of Student's interval.
    """

    grid: str
    variant: str
    claimed: bool
    seeds: int
    planned: int
    mean: float
    student: tuple[float, float]
    bootstrap: tuple[float, float]
    student_p: float
    bootstrap_p: float
    parts: dict[str, tuple[float, float | None]]

    @property
    def p_value(self) -> float:
        """Of both tests, as a claim needs both."""
        return max(self.student_p, self.bootstrap_p)


def claims_of(cells: KeptCells, name: str, draws: int) -> Iterator[Claim]:
    """Compares the reference of a grid with each of `compared_variants`, over the seeds at which both were tested. What
    the bootstrap draws of the reference serves all of them.

    Raises:
        ConfigError: fewer than two such seeds, runs that were tested on different images, or a pair on different kinds
            of device or in different precisions.
        DatasetError: a kept cell cannot be read.
    """
    grid, results = cells.grid, cells.results()
    tested = [cell for cell in chosen_cells(grid, results) if cell in results and results[cell].test is not None]
    by_seed = {variant: {cell.seed: cell for cell in tested if cell.variant == variant} for variant in grid.variants}

    @cache
    def drawn(runs: tuple[Cell, ...]) -> np.ndarray:
        return bootstrap_means([cells.matches(run) for run in runs], draws)

    for variant in compared_variants(grid):
        seeds = [seed for seed in grid.seeds if seed in by_seed[grid.reference] and seed in by_seed[variant]]
        if len(seeds) < 2:
            raise ConfigError(f"{cells.folder}: {variant}: {len(seeds)} pairs of tested runs, a test needs two or more")
        own, other = (tuple(by_seed[each][seed] for seed in seeds) for each in (grid.reference, variant))
        _require_same_images(cells, (*own, *other))
        _require_same_arithmetic(cells, [(results[a], results[b]) for a, b in zip(own, other, strict=True)])
        values = {name: [[results[run].tested[name] for run in side] for side in (own, other)] for name in METRICS}
        mean, half_width = paired_difference(*values["AP"])
        assert half_width is not None  # there are two or more
        differences = drawn(own) - drawn(other)
        differences = differences[~np.isnan(differences)]  # draws of images without any object say nothing
        if not len(differences):
            raise ConfigError(f"{cells.folder}: {variant}: the test split has no objects, so there is no AP")
        yield Claim(
            name,
            variant,
            variant in grid.claims,
            len(seeds),
            len(grid.seeds),
            mean,
            (mean - half_width, mean + half_width),
            bootstrap_interval(differences),
            paired_p_value(*values["AP"]),
            bootstrap_p_value(differences),
            {part: paired_difference(*values[part]) for part in PARTS},
        )


def compared_variants(grid: Grid) -> list[str]:
    """Those of the claims of a grid; of one without claims all but the reference."""
    return grid.claims or [variant for variant in grid.variants if variant != grid.reference]


def _require_same_images(cells: KeptCells, runs: Sequence[Cell]) -> None:
    objects = cells.matches(runs[0]).objects
    for run in runs:
        if not np.array_equal(cells.matches(run).objects, objects):
            raise ConfigError(
                f"{cells.folder}: {run.name} was tested on other images than {runs[0].name}; remove one of them, and "
                "run it again on the same annotation file"
            )


def _require_same_arithmetic(cells: KeptCells, pairs: Sequence[tuple[Result, Result]]) -> None:
    for own, other in pairs:
        if own.arithmetic != other.arithmetic:
            raise ConfigError(
                f"{cells.folder}: {own.cell.name} ran on {own.arithmetic} and {other.cell.name} on {other.arithmetic}; "
                "a pair must not mix them: remove one of them, and run it again as the other ran"
            )


def claims_table(claims: list[Claim], references: Mapping[str, str]) -> str:
    """Markdown, a row for each comparison, those that are claimed with p-values and Holm's correction for their number.

    Args:
        references: grid -> its reference.
    """
    lines = [
        "| data | comparison | seeds | ΔAP | 95 %, Student | 95 %, bootstrap | p, Student | p, bootstrap | p, Holm | |",
        "|" + "---|" * 10,
    ]
    corrected = iter(holm([claim.p_value for claim in claims if claim.claimed]))
    for claim in claims:
        student, bootstrap = (f"{low:+.4f} … {high:+.4f}" for low, high in (claim.student, claim.bootstrap))
        pair = f"{references[claim.grid]} – {claim.variant}"
        test = "| | | | no claim"
        if claim.claimed:
            p_value = next(corrected)
            p_values = " | ".join(f"{value:.4f}" for value in (claim.student_p, claim.bootstrap_p, p_value))
            test = f"| {p_values} | {_verdict(claim, p_value)}"
        seeds = f"{claim.seeds}" if claim.seeds == claim.planned else f"{claim.seeds} of {claim.planned}"
        lines.append(f"| {claim.grid} | {pair} | {seeds} | {claim.mean:+.4f} | {student} | {bootstrap} {test} |")
    return "\n".join(lines)


def parts_table(claims: list[Claim], references: Mapping[str, str]) -> str:
    """Markdown, a row for each claim: what the reference has more of in each of PARTS, with Student's 95 % interval.

    Args:
        references: as of `claims_table`.
    """
    lines = [f"| data | comparison | {' | '.join(PARTS[:-1])} | ρ |", "|" + "---|" * (len(PARTS) + 2)]
    for claim in claims:
        cells = [difference_text(*claim.parts[part]) for part in PARTS]
        lines.append(f"| {claim.grid} | {references[claim.grid]} – {claim.variant} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _verdict(claim: Claim, p_value: float) -> str:
    if claim.seeds < claim.planned:
        return "unfinished"
    if p_value < 1 - LEVEL:
        return "ahead" if claim.mean > 0 else "behind"
    return "not behind" if min(claim.student[0], claim.bootstrap[0]) > NOT_BEHIND else "open"
