"""The diagnosis of a run as it goes on: its file, its warnings, its pages on TensorBoard and its summary."""

import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from data import CocoDetection
from detector.monitor import IOU_EDGES, LOGIT_EDGES, RANK_EDGES
from engine.diagnosis.anchor_fit import anchor_fit, best_base_scale
from engine.diagnosis.checks import (
    EVALUATION_CHECKS,
    STEP_CHECKS,
    SYMPTOM_CHECKS,
    WINDOW,
    Finding,
    check_anchors,
    check_schedule,
)
from engine.diagnosis.step_record import Record, is_detailed, median_of, summarise
from engine.reporting.tensorboard import NullLogger
from engine.run.config import Config
from engine.run.schedule import Schedule
from engine.run.step_lines import StepLines

log = logging.getLogger(__name__)

HISTOGRAM_EVERY = 5  # records: a histogram takes the room of a hundred numbers
HISTOGRAMS = {  # statistic -> its edges, and what its axis is
    "hist_logit_positive": (LOGIT_EDGES, "logit_positive"),
    "hist_logit_negative": (LOGIT_EDGES, "logit_negative"),
    "hist_rank": (RANK_EDGES.log10(), "log10_rank_positive"),
    "hist_iou": (IOU_EDGES, "matched_iou"),
}

BALANCES = {"self_balance", "self_balance_rpn", "self_balance_roi"}  # numbers of a step, of one head or of two


class Diagnosis:
    """Of one run, in its main process.

    The file has one JSON object per line, appended as it is known: the configuration, how the anchors fit, a record
    per logged step, and the findings (`cause`, `message`), each cause once a run. Every line has its `step`.

    Args:
        path: the file; lines of steps after `step` are dropped.
        step: steps done so far.
        level_names: of the detector's pyramid.
    """

    def __init__(
        self, config: Config, schedule: Schedule, path: Path, step: int, level_names: Sequence[str] = ()
    ) -> None:
        self.config, self.schedule, self.level_names = config, schedule, level_names
        self.file = StepLines(path, step)
        self.records: list[Record] = [line for line in self.file.kept if "loss" in line]
        self.causes = {line["cause"]: line["step"] for line in self.file.kept if "cause" in line}
        if not any("config" in line for line in self.file.kept):
            self.file.append({"step": step, "config": config.to_dict()})

    def look_at_data(self, dataset: CocoDetection) -> None:
        """Checks schedule and anchors, before the first step."""
        model, data = self.config.model, self.config.data
        findings = [check_schedule(self.config, self.schedule)]
        fit = anchor_fit(dataset, model, data)
        if fit is not None:
            self.file.append({"step": 0, "objects": fit.objects, "missed_by_anchors": fit.missed})
            base_scale = getattr(model, "anchor_base_scale", None)  # of the families with anchors
            if base_scale is not None:
                findings.insert(0, check_anchors(fit, base_scale, lambda: best_base_scale(dataset, model, data)))
        self._report(findings, step=0)

    def add(self, step: int, stats: dict[str, float], statistics: dict[str, Tensor], logger: NullLogger) -> None:
        """Takes down a logged step and warns of what it gives away.

        Args:
            stats, statistics: of the step, see `TrainStep`.
        """
        record = summarise(statistics, stats, self.config.model.score_thresh)
        record = {"step": step, "epoch": step // self.schedule.steps_per_epoch, **record}
        self.file.append(record)
        self.records.append(record)
        logger.scalars("train_diagnosis", _scalars(record, stats, self.level_names), step)
        if is_detailed(statistics) and (step // self.config.run.log_every) % HISTOGRAM_EVERY == 1:
            for name, (edges, tag) in HISTOGRAMS.items():
                if name in statistics:  # a detector may compare no boxes
                    logger.histogram(f"train_diagnosis/{tag}", statistics[name], edges, step)
        self._check(STEP_CHECKS)
        if not self.causes:
            self._check(SYMPTOM_CHECKS)

    def evaluated(self, generalisation: Finding | None, step: int) -> None:
        """Says on the console how training stands after `step`.

        Args:
            generalisation: what the evaluation shows of training beside validation images, see `check_generalisation`.
        """
        self._check(EVALUATION_CHECKS)
        self._report([generalisation], step)
        if self.records:
            log.info("%s", format_summary(self.records, self.causes, self.level_names))

    def _check(self, checks: Sequence[Callable[[Sequence[Record], Config, Schedule], Finding | None]]) -> None:
        if self.records:
            self._report(
                [check(self.records, self.config, self.schedule) for check in checks], self.records[-1]["step"]
            )

    def _report(self, findings: Sequence[Finding | None], step: int) -> None:
        for finding in findings:
            if finding is not None and finding.cause not in self.causes:
                self.causes[finding.cause] = step
                self.file.append({"step": step, "cause": finding.cause, "message": finding.message})
                log.warning("diagnosis (%s): %s", finding.cause, finding.message)


def format_summary(records: Sequence[Record], causes: dict[str, int], level_names: Sequence[str]) -> str:
    """A few lines for the console, medians of the last logged steps; no final newline.

    Args:
        causes: name -> step at which it was seen.
        level_names: of the counts of positives.
    """
    window, first = records[-WINDOW:], records[0]
    names = {name for record in window for name in record} - {"positives_per_level"}
    now = defaultdict(lambda: "-", {name: _text(median_of(window, name)) for name in names})
    levels = ", ".join(
        f"{name} {sum(counts) / len(counts):.0f}" for name, counts in _per_level(window, level_names).items()
    )
    lines = [
        f"diagnosis at step {window[-1]['step']}, medians of {len(window)} logged steps:",
        f"  positives  {now['num_positives']} a step for {now['num_objects']} objects ({levels}); "
        f"share of objects that an anchor fits {now['objects_reached']}",
        f"  ranking    precision {now['precision']} (at first {_text(first.get('precision'))}), rank {now['rank']}, "
        f"score {now['score_positive']}; relevant negatives {now['relevant_negatives']} of all",
        f"  boxes      IoU {now['matched_iou']} (at first {_text(first.get('matched_iou'))})",
        f"  updates    {now['update_ratio']} of the weights' length, gradient norm {now['grad_norm']}"
        + "".join(f", balance weight{name[12:].replace('_', ' ')} {now[name]}" for name in sorted(names & BALANCES)),
        "  causes     " + (", ".join(f"{cause} (step {step})" for cause, step in causes.items()) or "none seen"),
    ]
    return "\n".join(lines)


def _scalars(record: Record, stats: dict[str, float], level_names: Sequence[str]) -> dict[str, float]:
    """The numbers of a record beside those of the step, one by one."""
    values = {name: value for name, value in record.items() if name not in (*stats, "step", "epoch")}
    flat = {f"positives_{name}": counts[0] for name, counts in _per_level([record], level_names).items()}
    for name, value in values.items():
        if isinstance(value, list) and name != "positives_per_level":
            flat[name] = value[1]
        elif not isinstance(value, list):
            flat[name] = value
    return {name: value for name, value in flat.items() if value is not None}


def _per_level(records: Sequence[Record], level_names: Sequence[str]) -> dict[str, list[float]]:
    levels = zip(*(record["positives_per_level"] for record in records if "positives_per_level" in record), strict=True)
    return {name: list(counts) for name, counts in zip(level_names, levels, strict=False)}


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
