"""AP over the length of training: every variant at each length of a grid, and where one overtakes another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np

from engine.tools.ablation.choice import chosen_cells
from engine.tools.ablation.grid import Grid, Results
from engine.tools.ablation.statistics import paired_difference
from engine.tools.ablation.tables import difference_text, mean_and_deviation


@dataclass(frozen=True)
class Point:
    """Runs of a variant at one length.

    Attributes:
        steps: how many they were trained for.
        learning_rate: chosen at this length.
        aps: seed -> AP on val at the end.
    """

    steps: int
    learning_rate: float
    aps: dict[int, float]


Curves = Mapping[str, Mapping[int, Point]]  # variant -> epochs -> point, shortest first; what did not end is left out


def length_curves(grid: Grid, results: Results) -> Curves:
    """The runs of a grid of several lengths at the chosen rates; none of another grid."""
    curves: dict[str, dict[int, Point]] = {variant: {} for variant in grid.variants}
    cells = [cell for cell in chosen_cells(grid, results) if cell in results]
    for epochs in sorted(grid.lengths):
        for cell in cells:
            if cell.epochs == epochs:
                last = results[cell].history[-1]
                point = curves[cell.variant].setdefault(epochs, Point(last["step"], cell.learning_rate, {}))
                point.aps[cell.seed] = last["AP"]
    return {variant: points for variant, points in curves.items() if points}


@dataclass(frozen=True)
class Difference:
    """The paired difference of two variants in AP at one length, and half the width of its 95 % interval if there are
    several pairs."""

    steps: int
    mean: float
    half_width: float | None


def differences(curves: Curves, own: str, other: str) -> dict[int, Difference]:
    """By epochs, over the seeds that both variants have; a length without such a seed is left out."""
    found = {}
    for epochs in [each for each in curves[own] if each in curves[other]]:
        mine, theirs = curves[own][epochs], curves[other][epochs]
        seeds = [seed for seed in mine.aps if seed in theirs.aps]
        if seeds:
            difference = paired_difference([mine.aps[seed] for seed in seeds], [theirs.aps[seed] for seed in seeds])
            found[epochs] = Difference(mine.steps, *difference)
    return found


def crossings(steps: Sequence[int], values: Sequence[float]) -> list[float]:
    """Lengths where a difference changes its sign, if it is linear in their logarithm between those measured.

    Args:
        steps: ascending. values: the difference at each; 0 counts as positive.
    """
    return [
        float(np.exp(start + (end - start) * before / (before - after)))
        for (start, before), (end, after) in pairwise(zip(np.log(steps), values, strict=True))
        if (before >= 0) != (after >= 0)
    ]


def length_table(grid: Grid, curves: Curves) -> str:
    """Markdown: AP on val with its rate, by variant and length; then the difference of each pair, and where it is 0."""
    steps = {epochs: point.steps for points in curves.values() for epochs, point in points.items()}
    columns = sorted(steps)
    lines = [
        f"| AP on val | {' | '.join(f'{steps[epochs]} steps' for epochs in columns)} | equal at |",
        "|" + "---|" * (len(columns) + 2),
    ]
    for variant, points in curves.items():
        cells = [_point(points[epochs]) if epochs in points else "" for epochs in columns]
        lines.append(f"| {variant} | {' | '.join(cells)} | |")
    for own, other in combinations(curves, 2):
        found = differences(curves, own, other)
        cells = [
            difference_text(found[epochs].mean, found[epochs].half_width) if epochs in found else ""
            for epochs in columns
        ]
        lines.append(f"| {own} – {other} | {' | '.join(cells)} | {_equal_at([*found.values()])} |")
    return "\n".join(lines)


def _point(point: Point) -> str:
    return f"{mean_and_deviation([*point.aps.values()])} (rate {point.learning_rate:g})"


def _equal_at(found: Sequence[Difference]) -> str:
    places = crossings([each.steps for each in found], [each.mean for each in found])
    return ", ".join(f"{place:.0f} steps" for place in places) or "nowhere"
