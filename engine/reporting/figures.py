"""Figures of evaluations as PNG files and as SVG for pages; matplotlib is imported when the first one is drawn.

Colours tell apart on white and on black, and with the common colour blindnesses. Names are drawn literally, with
another font where matplotlib's lacks a letter.
"""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from engine.reporting.analysis import Analysis
from engine.reporting.fonts import drawable, families

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, GRID, MUTED = "#24292f", "#d8dee3", "#8c959f"
PALETTE = (
    *("#0b84d8", "#e4682a", "#1a9e77", "#b958b0", "#c99a06", "#d6455d"),
    *("#5a6ee0", "#6f9e2c", "#9a6b4f", "#3fa7b5", "#7a1f3d", "#27496d"),
)
BUDGET_PARTS = ("localisation", "false positives", "misses")
BUDGET_COLORS = ("#0b84d8", "#e4682a", "#7a5cbe")
MAX_COLORED = len(PALETTE)  # classes drawn in colours of their own
MAX_POINTS = 400  # of a curve
DPI = 150
CURVES_WIDTH = 4.6  # inches
STYLE: dict[Any, Any] = {
    "text.parse_math": False,  # a class may be called $
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.edgecolor": GRID,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color"), INK),
}


def precision_recall_figure(analysis: Analysis, width: float = CURVES_WIDTH) -> "Figure":
    """Interpolated precision over recall: of each class at IoU 0.5, and the classes' means at three thresholds."""
    with _axes(width, 0.8 * width) as (figure, axes):
        classes = analysis.precision["0.50"]
        faint = 0.6 if len(classes) <= MAX_COLORED else 0.3
        for label in range(len(analysis.class_names)):
            axes.plot(analysis.recall, classes[label], color=MUTED, linewidth=0.6, alpha=faint)
        for (threshold, precision), color in zip(analysis.precision.items(), PALETTE, strict=False):
            defined = precision[~np.isnan(precision).any(axis=1)]
            if len(defined):
                text = f"IoU {threshold}: {defined.mean():.3f}"
                axes.plot(analysis.recall, defined.mean(axis=0), color=color, linewidth=2, label=text)
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
        axes.set_title("Precision over recall, mean of classes", loc="left")
        _legend(figure, axes)
    return figure


def lrp_figure(analysis: Analysis, width: float = CURVES_WIDTH) -> "Figure":
    """LRP of each class over the score threshold, its LRP-optimal threshold marked where it has one."""
    names = _labels(analysis.class_names)
    with _axes(width, 0.8 * width, names=names) as (figure, axes):
        curves = enumerate(analysis.curves)
        shown = [(label, curve) for label, curve in curves if curve is not None and curve.best is not None]
        colored = shown if len(shown) <= MAX_COLORED else []
        for rank, (label, curve) in enumerate(shown):
            color = PALETTE[rank] if colored else MUTED
            kept = np.unique([*np.linspace(0, len(curve.lrp) - 1, MAX_POINTS).round().astype(int), curve.best])
            # keeping what scores at least t gives lrp[i] for t in (scores[i + 1], scores[i]]
            axes.step(
                curve.scores[kept][::-1],
                curve.lrp[kept][::-1],
                where="pre",
                color=color,
                linewidth=1.4 if colored else 0.6,
                alpha=1 if colored else 0.4,
                label=names[label] if colored else None,
            )
            mark = (curve.scores[curve.best], curve.lrp[curve.best])
            axes.plot(*mark, "o", color=color if colored else PALETTE[0], markersize=5 if colored else 3, gid="optimum")
        axes.set(xlabel="score threshold", ylabel="LRP", ylim=(0, 1.02))
        axes.set_xlim(left=0)
        axes.set_title("LRP over score threshold, dot: optimum", loc="left")
        if colored:
            _legend(figure, axes)
    return figure


def per_class_figure(analysis: Analysis) -> "Figure":
    """AP of each class, and its oLRP as the sum of its error budget; without ground truth neither."""
    names = _labels(analysis.class_names)
    with _axes(8.5, 1.1 + 0.19 * len(names), columns=2, names=names, sharey=True) as (figure, (left, right)):
        rows = np.arange(len(names))
        left.barh(rows, np.nan_to_num(analysis.precision["0.50:0.95"].mean(axis=1)), color=PALETTE[2], height=0.7)
        budgets = [(0.0, 0.0, 0.0) if errors is None else errors.budget for errors in analysis.classes]
        start = np.zeros(len(names))
        for part, color, widths in zip(BUDGET_PARTS, BUDGET_COLORS, np.array(budgets).reshape(-1, 3).T, strict=True):
            right.barh(rows, widths, left=start, color=color, height=0.7, label=part)
            start += widths
        left.set_yticks(rows, names)
        left.set(xlim=(0, 1), ylim=(len(names) - 0.4, -0.6), title="AP (higher is better)")
        right.set(xlim=(0, 1), title="oLRP (lower is better)")
        right.legend(loc="upper center", bbox_to_anchor=(0.5, -0.35 / (0.4 + 0.19 * len(names))), ncol=3)
        for axes in (left, right):
            axes.grid(axis="y", visible=False)
    return figure


def confusion_figure(names: Sequence[str], matrix: np.ndarray) -> "Figure":
    """Counts of (k + 1, k + 1) objects and detections, `names` naming the first k; colour: share of the row."""
    side, labels = 1.8 + 0.3 * len(matrix), _labels(names)
    with _axes(side, side, names=labels) as (figure, axes):
        shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for (row, column), count in np.ndenumerate(matrix):
            if count:
                color = "white" if shares[row, column] > 0.5 else INK
                axes.text(column, row, str(count), ha="center", va="center", fontsize=7, color=color)
        ticks = np.arange(len(matrix))
        axes.set_xticks(ticks, [*labels, "missed"], rotation=90)
        axes.set_yticks(ticks, [*labels, "no object"])
        axes.set(xlabel="detected as", ylabel="object")
        axes.grid(visible=False)
    return figure


def comparison_figure(runs: Sequence[tuple[str, list[dict[str, Any]]]]) -> "Figure":
    """AP and oLRP over the epochs of several runs.

    Args:
        runs: (name, evaluations in the form of metrics.jsonl).
    """
    names = _labels([name for name, _ in runs], "run")
    with _axes(9, 3.6, columns=2, names=names) as (figure, panels):
        for axes, metric, better in zip(panels, ("AP", "oLRP"), ("higher", "lower"), strict=True):
            for index, (_, records) in enumerate(runs):
                points = [(record["epoch"], record[metric]) for record in records if record[metric] >= 0]
                axes.plot(
                    [epoch for epoch, _ in points],
                    [value for _, value in points],
                    color=PALETTE[index % len(PALETTE)],
                    linestyle=("-", "--", ":")[index // len(PALETTE) % 3],
                    marker="o",
                    markersize=3,
                    label=names[index],
                )
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.set(xlabel="epoch", title=f"{metric} ({better} is better)")
        _legend(figure, panels[0])
    return figure


def figure_png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    _save(figure, buffer, "png")
    return buffer.getvalue()


def figure_pixels(figure: "Figure", dpi: int) -> np.ndarray:
    """(3, H, W) uint8, RGB on white."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(dpi)
    with _quiet_style():
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].transpose(2, 0, 1)


def figure_svg(figure: "Figure", label: str) -> str:
    """An <svg> element that takes the page's font and its colours --ink, --grid and --muted.

    Args:
        label: what it shows, for who cannot see it; text, not HTML.
    """
    buffer = io.StringIO()
    _save(figure, buffer, "svg")
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    for color, variable in ((INK, "--ink"), (GRID, "--grid"), (MUTED, "--muted")):
        svg = svg.replace(color, f"var({variable})")
    label = label.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)


@contextmanager
def _axes(
    width: float, height: float, columns: int = 1, names: Sequence[str] = (), **options: Any
) -> Iterator[tuple["Figure", Any]]:
    """A figure of so many inches, with fonts for the names, and its axes, or the array of them."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE | {"font.family": families(tuple(names))}):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.subplots(1, columns, **options)


@contextmanager
def _quiet_style() -> Iterator[None]:
    from matplotlib import rc_context

    with rc_context(STYLE):
        yield


def _save(figure: "Figure", target: IO[Any], kind: str) -> None:
    with _quiet_style():
        figure.savefig(target, format=kind, dpi=DPI, transparent=kind == "svg")


def _legend(figure: "Figure", axes: "Axes") -> None:
    """Below the figure, where it covers no curve, in as many columns as it is wide enough for."""
    handles, labels = axes.get_legend_handles_labels()
    for columns in range(min(3, len(labels)), 0, -1):
        legend = figure.legend(handles, labels, loc="outside lower center", ncol=columns)
        if columns == 1 or legend.get_window_extent().width < figure.bbox.width:  # both at the figure's own dpi
            return
        legend.remove()


def _labels(names: Sequence[str], kind: str = "class") -> list[str]:
    """Names as figures show them: cut to 20 letters, and by number where no font has their letters."""
    return [drawable(_short(name), f"{kind} {number}") for number, name in enumerate(names, start=1)]


def _short(name: str) -> str:
    name = " ".join(name.split())
    return name if len(name) <= 20 else name[:19] + "…"
