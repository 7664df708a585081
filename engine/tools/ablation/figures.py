"""Figures of an ablation: AP of the runs, AP over training and over its length, and the gradient mass of the losses."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from operator import methodcaller
from pathlib import Path

import numpy as np

from data.files import write_atomically
from engine.reporting.figures import INK, PALETTE, STYLE, figure_png
from engine.tools.ablation.grid import Cell, Results, Variant
from engine.tools.ablation.lengths import Curves, crossings, differences

FIGURES = ("ap.png", "training.png", "gradient_mass.png")
LENGTHS = "lengths.png"
MASSES = {"positives": "train/grad_mass_positive", "negatives": "train/grad_mass_negative"}
SMOOTHING = 5  # logged steps
LOSS_COLORS = {  # settings of the loss, but for the width of its step -> its colour in every figure
    (): PALETTE[0],
    ("loss.loc_error=iou",): PALETTE[1],
    ("loss.self_balance=false",): PALETTE[2],
    ("loss.name=rs",): PALETTE[3],
    ("loss.name=ap",): PALETTE[4],
    ("loss.name=focal",): PALETTE[5],
    ("loss.box_loss=giou", "loss.name=focal"): PALETTE[6],
    ("loss.box_weights=equal",): PALETTE[7],
    ("loss.name=dr",): PALETTE[8],
}


def variant_colors(variants: Mapping[str, Variant]) -> dict[str, str]:
    """Colour of each variant: that of its loss, so that figures of several grids go together; another one for a loss
    that has none of its own, or whose colour an earlier variant has, and for a variant of another experiment."""
    colors: dict[str, str] = {}
    for name, variant in variants.items():
        if variant.config is not None:
            continue
        settings = (
            text for text in variant.overrides if text.startswith("loss.") and not text.startswith("loss.delta=")
        )
        own = LOSS_COLORS.get(tuple(sorted(settings)))
        if own is not None and own not in colors.values():
            colors[name] = own
    free = [color for color in reversed(PALETTE) if color not in colors.values()]
    others = [name for name in variants if name not in colors]
    return colors | {name: (free or PALETTE)[index % len(free or PALETTE)] for index, name in enumerate(others)}


def draw_figures(
    cells: list[Cell], results: Results, runs: Path, output: Path, colors: Mapping[str, str]
) -> list[Path]:
    """Writes FIGURES of the given finished cells in the colours of their variants; returns their paths."""
    import matplotlib

    by_variant: dict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        by_variant[cell.variant].append(cell)
    paths = []
    for name, draw in zip(FIGURES, (_draw_ap, _draw_training, _draw_gradient_mass), strict=True):
        with matplotlib.rc_context(STYLE):
            png = figure_png(draw(by_variant, results, runs, colors))
        write_atomically(output / name, methodcaller("write", png))
        paths.append(output / name)
    return paths


def draw_lengths(curves: Curves, reference: str, output: Path, colors: Mapping[str, str]) -> Path:
    """Writes LENGTHS: AP on val over the steps of training, a dot for each seed and a line through the means; and how
    far the reference is ahead of each other variant, with a ring where that changes its sign. Returns the path."""
    import matplotlib

    steps = sorted({point.steps for points in curves.values() for point in points.values()})
    with matplotlib.rc_context(STYLE):
        figure = _figure(9, 3.8)
        left, right = figure.subplots(1, 2)
        _draw_curves(left, curves, colors)
        _draw_differences(right, curves, reference, colors)
        for axes in (left, right):
            _axis_of_lengths(axes, steps)
        png = figure_png(figure)
    write_atomically(output / LENGTHS, methodcaller("write", png))
    return output / LENGTHS


def _draw_curves(axes, curves: Curves, colors: Mapping[str, str]) -> None:
    for variant, points in curves.items():
        color, means = colors[variant], [np.mean([*point.aps.values()]) for point in points.values()]
        for point in points.values():
            axes.plot([point.steps] * len(point.aps), [*point.aps.values()], "o", color=color, alpha=0.5, markersize=5)
        axes.plot([point.steps for point in points.values()], means, color=color, linewidth=2, label=variant)
    axes.set_ylabel("AP on the val split")
    axes.legend()


def _draw_differences(axes, curves: Curves, reference: str, colors: Mapping[str, str]) -> None:
    for variant in [each for each in curves if each != reference and reference in curves]:
        found = differences(curves, reference, variant).values()
        steps, means = [each.steps for each in found], [each.mean for each in found]
        axes.plot(steps, means, "o-", color=colors[variant], markersize=5)
        places = crossings(steps, means)
        axes.plot(places, [0] * len(places), "o", color=INK, fillstyle="none", markersize=10)
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.set_ylabel(f"AP of {reference}, less that of the other")


def _axis_of_lengths(axes, steps: Sequence[int]) -> None:
    """A logarithmic one, with the lengths that were trained."""
    axes.set_xscale("log")
    axes.set_xticks(steps, [str(each) for each in steps])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("steps of training")


def _figure(width: float, height: float):
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _draw_ap(by_variant: dict[str, list[Cell]], results: Results, runs: Path, colors: Mapping[str, str]):
    """A dot for each seed, a line at the mean."""
    figure = _figure(6.5, 0.8 + 0.35 * len(by_variant))
    axes = figure.subplots()
    for row, (variant, cells) in enumerate(by_variant.items()):
        values = [results[cell].tested["AP"] for cell in cells]
        color = colors[variant]
        axes.plot(values, [row] * len(values), "o", color=color, alpha=0.6, markersize=5)
        axes.plot([np.mean(values)] * 2, [row - 0.3, row + 0.3], color=color, linewidth=2)
    axes.set_yticks(range(len(by_variant)), list(by_variant))
    axes.set(xlabel="AP on the test split, a dot for each seed", ylim=(len(by_variant) - 0.5, -0.5))
    return figure


def _draw_training(by_variant: dict[str, list[Cell]], results: Results, runs: Path, colors: Mapping[str, str]):
    """AP on val over the epochs, mean and range over the seeds."""
    figure = _figure(6.5, 4)
    axes = figure.subplots()
    for variant, cells in by_variant.items():
        color = colors[variant]
        epochs = [record["epoch"] for record in results[cells[0]].history]
        histories = [[record["AP"] for record in results[cell].history] for cell in cells]
        curves = np.array([history for history in histories if len(history) == len(epochs)])
        axes.plot(epochs, curves.mean(0), "o-", markersize=3, color=color, label=variant)
        axes.fill_between(epochs, curves.min(0), curves.max(0), color=color, alpha=0.15, linewidth=0)
    axes.set(xlabel="epoch", ylabel="AP on the val split", ylim=(0, None))
    axes.legend()
    return figure


def _draw_gradient_mass(by_variant: dict[str, list[Cell]], results: Results, runs: Path, colors: Mapping[str, str]):
    """Σ|∂L/∂s| over positives and, dashed, over negatives, first seed of each variant; ranking losses keep them
    equal."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    columns = min(4, len(by_variant))
    rows = -(-len(by_variant) // columns)
    figure = _figure(max(4.0, 2.6 * columns), 2.4 * rows)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[len(by_variant) :]:
        axes.set_axis_off()
    for axes, (variant, cells) in zip(grid, by_variant.items(), strict=False):
        if not (runs / cells[0].name).exists():  # it ran elsewhere, and its curves are not kept
            continue
        events = EventAccumulator(str(runs / cells[0].name)).Reload()
        for (label, tag), color, style in zip(MASSES.items(), (colors[variant], INK), ("-", "--"), strict=True):
            if tag in events.Tags()["scalars"]:
                points = events.Scalars(tag)
                width = min(SMOOTHING, len(points))
                mass = np.convolve([point.value for point in points], np.ones(width) / width, mode="valid")
                axes.plot([point.step for point in points][width - 1 :], mass, style, color=color, label=label)
        axes.set_ylim(0, None)
        axes.set_title(variant, loc="left")
    if grid[0].lines:
        grid[0].legend()
    figure.supxlabel("step", fontsize=9)
    figure.supylabel("gradient mass on the logits", fontsize=9)
    return figure
