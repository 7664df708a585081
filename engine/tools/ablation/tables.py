"""What the runs of an ablation say: metrics of a run, a table of mean and spread, a line for every run."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from engine.metrics.average_precision import precisions
from engine.metrics.coco_metrics import metrics_of
from engine.metrics.lrp import lrp_curve
from engine.metrics.matching import UNMATCHED, Matches
from engine.tools.ablation.choice import chosen_cells
from engine.tools.ablation.grid import Cell, Grid, Results
from engine.tools.ablation.statistics import paired_difference

METRICS = ("AP", "AP50", "AP75", "AP90", "oLRP", "oLRP_loc", "oLRP_fp", "oLRP_fn", "rho")


def metrics_on_test(matches: Matches) -> dict[str, float]:
    """`METRICS` of a run's detections on its test split."""
    metrics = metrics_of(matches)
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


def markdown_table(grid: Grid, results: Results) -> str:
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
        columns = [mean_and_deviation([test[name] for test in tests]) for name in METRICS]
        paired = [cell for cell in cells if cell.seed in reference]
        difference = "" if variant == grid.reference or not paired else _difference(paired, results, reference)
        step_ms = np.median([results[cell].step_ms for cell in cells])
        lines.append(
            f"| {variant} | {cells[0].learning_rate:g} | {len(cells)} | {' | '.join(columns)} | {difference} "
            f"| {step_ms:.0f} |"
        )
    return "\n".join(lines)


def csv_rows(grid: Grid, results: Results) -> list[list[Any]]:
    """Header and one row for every finished cell."""
    chosen = set(chosen_cells(grid, results))
    about = ["variant", "learning_rate", "seed", "of", "chosen", "epochs", "val_AP"]
    rows: list[list[Any]] = [[*about, *METRICS, "step_ms", "clipped"]]
    for cell, result in results.items():
        test = [None if result.test is None else result.test[name] for name in METRICS]
        kind = "search" if cell.of_search else "final"
        last = result.history[-1]
        own = [cell.variant, cell.learning_rate, cell.seed, kind, int(cell in chosen), last["epoch"], result.val_ap]
        rows.append([*own, *test, result.step_ms, result.clipped])
    return rows


def mean_and_deviation(values: Sequence[float]) -> str:
    deviation = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{deviation}"


def _difference(cells: Sequence[Cell], results: Results, reference: dict[int, float]) -> str:
    own = [results[cell].tested["AP"] for cell in cells]
    return difference_text(*paired_difference(own, [reference[cell.seed] for cell in cells]))


def difference_text(mean: float, half_width: float | None) -> str:
    """A mean difference with its interval, if it has one."""
    return f"{mean:+.3f}" + ("" if half_width is None else f" ± {half_width:.3f}")
