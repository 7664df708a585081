"""Diagnosed runs side by side, from their diagnosis.jsonl."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from engine.diagnosis.step_record import Record, median_of
from engine.reporting.figures import MUTED, PALETTE, STYLE
from engine.run.config import ConfigError
from engine.run.step_lines import read_step_lines
from losses.table import LOSSES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS = (  # title, name in a record (the middle one of a list), logarithmic
    ("precision of the positives", "precision", True),
    ("median rank of the positives", "rank", True),
    ("median score of the positives", "score_positive", False),
    ("IoU of positives with their objects", "matched_iou", False),
    ("IoU of objects with their best anchor", "anchor_iou", False),
    ("update / length of the weights", "update_ratio", True),
    ("gradient norm before clipping", "grad_norm", True),
    ("balance weight (of an RPN dashed)", "self_balance", False),
)
LINES = {"self_balance": {"self_balance": "-", "self_balance_roi": "-", "self_balance_rpn": "--"}}  # of one panel
COLUMNS = 4
SMOOTHING = 5  # records, whose median is drawn


class DiagnosedRun(NamedTuple):
    """A run to draw: its name, the records of its logged steps, and the update ratio that is too high for its loss."""

    name: str
    records: list[Record]
    high_ratio: float


def read_run(folder: str | Path) -> DiagnosedRun:
    """A diagnosed run from its folder. Raises ConfigError where there is no diagnosis."""
    path = Path(folder) / "diagnosis.jsonl"
    lines = read_step_lines(path)
    records = [line for line in lines if "loss" in line]
    configs = [line["config"] for line in lines if "config" in line]
    if not records or not configs:
        raise ConfigError(f"{path}: no diagnosis; train with run.diagnose=true, for at least run.log_every steps")
    try:
        loss = LOSSES[configs[0]["loss"]["name"]]
    except (KeyError, TypeError) as error:
        raise ConfigError(f"{path}: damaged, it names no loss ({error!r}); copy it again") from error
    return DiagnosedRun(Path(folder).resolve().name, records, loss.Settings.update_ratios[1])


def diagnosis_figure(runs: Sequence[DiagnosedRun]) -> "Figure":
    """A panel for each statistic over the steps, a line for each run; dotted, the ratios that are too high."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(12, 5.2), layout="constrained")
        panels = figure.subplots(len(PANELS) // COLUMNS, COLUMNS).ravel()
        for axes, (title, name, logarithmic) in zip(panels, PANELS, strict=True):
            for index, run in enumerate(runs):
                for each, style in LINES.get(name, {name: "-"}).items():
                    steps, values = _smooth(run.records, each)
                    color = PALETTE[index % len(PALETTE)]
                    axes.plot(steps, values, style, color=color, label=run.name, linewidth=1.4)
            if logarithmic:
                axes.set_yscale("log")
                axes.yaxis.set_major_formatter("{x:g}")
                axes.yaxis.set_minor_formatter("")
            else:
                axes.set_ylim(bottom=0)
            axes.set_title(title, loc="left", fontsize=9)
            axes.tick_params(labelsize=8)
            if name == "update_ratio":
                for high_ratio in {run.high_ratio for run in runs}:
                    axes.axhline(high_ratio, color=MUTED, linestyle=":", linewidth=1)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncol=min(len(runs), 5))
        for axes in panels[-COLUMNS:]:
            axes.set_xlabel("step", fontsize=8)
    return figure


def _smooth(records: Sequence[Record], name: str) -> tuple[list[int], list[float]]:
    """Steps and running medians of a number over the records that have it."""
    found = [record for record in records if record.get(name) is not None]
    windows = [found[max(0, end - SMOOTHING) : end] for end in range(1, len(found) + 1)]
    medians = [value for window in windows if (value := median_of(window, name)) is not None]  # every window has one
    return [record["step"] for record in found], medians
