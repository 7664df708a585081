"""Diagnosed runs side by side, from their diagnosis.jsonl."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engine.diagnosis.checks import UPDATE_RATIOS
from engine.diagnosis.diagnosis import read_lines
from engine.diagnosis.step_record import Record, middle
from engine.reporting.figures import MUTED, PALETTE, STYLE
from engine.run.config import ConfigError

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
    ("balance weight", "self_balance", False),
)
COLUMNS = 4
SMOOTHING = 5  # records, whose median is drawn


def read_records(folder: str | Path) -> list[Record]:
    """The logged steps of a diagnosed run. Raises ConfigError where there are none."""
    path = Path(folder) / "diagnosis.jsonl"
    records = [line for line in read_lines(path) if "loss" in line]
    if not records:
        raise ConfigError(f"{path}: no diagnosis; train with run.diagnose=true, for at least run.log_every steps")
    return records


def diagnosis_figure(runs: Sequence[tuple[str, list[Record]]]) -> "Figure":
    """A panel for each statistic over the steps, a line for each run: (name, records)."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(12, 5.2), layout="constrained")
        panels = figure.subplots(len(PANELS) // COLUMNS, COLUMNS).ravel()
        for axes, (title, name, logarithmic) in zip(panels, PANELS, strict=True):
            for index, (label, records) in enumerate(runs):
                steps, values = _smooth(records, name)
                axes.plot(steps, values, color=PALETTE[index % len(PALETTE)], label=label, linewidth=1.4)
            if logarithmic:
                axes.set_yscale("log")
                axes.yaxis.set_major_formatter("{x:g}")
                axes.yaxis.set_minor_formatter("")
            else:
                axes.set_ylim(bottom=0)
            axes.set_title(title, loc="left", fontsize=9)
            axes.tick_params(labelsize=8)
            if name == "update_ratio":
                axes.axhline(UPDATE_RATIOS["alrp"][1], color=MUTED, linestyle=":", linewidth=1)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncol=min(len(runs), 5))
        for axes in panels[-COLUMNS:]:
            axes.set_xlabel("step", fontsize=8)
    return figure


def _smooth(records: Sequence[Record], name: str) -> tuple[list[int], list[float]]:
    """Steps and running medians of a number over the records that have it."""
    found = [record for record in records if record.get(name) is not None]
    windows = [found[max(0, end - SMOOTHING) : end] for end in range(1, len(found) + 1)]
    return [record["step"] for record in found], [middle(window, name) for window in windows]
