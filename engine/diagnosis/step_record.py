"""The record of a logged step in a diagnosis: what its statistics come to, in plain numbers."""

import math
from collections.abc import Sequence
from statistics import median
from typing import Any

import torch
from torch import Tensor

from detector.monitor import IOU_EDGES, LOGIT_EDGES, RANK_EDGES

Record = dict[str, Any]

QUANTILES = (0.1, 0.5, 0.9)
NEGATIVE_QUANTILES = (0.5, 0.99, 0.9999)  # the few highest of very many are what counts


def summarise(statistics: dict[str, Tensor], stats: dict[str, float], score_thresh: float) -> Record:
    """The record of one step: rounded numbers, and None where there is nothing to measure.

    Args:
        statistics: of the whole batch, see `Monitor`; nothing is made of them without the detailed ones, which some
            detectors lack.
        stats: numbers of the step, see `TrainStep`.
        score_thresh: from which score on detections are evaluated.
    """
    record = stats | (_from_statistics(statistics, score_thresh) if is_detailed(statistics) else {})
    return {name: _plain(value) for name, value in record.items()}


def is_detailed(statistics: dict[str, Tensor]) -> bool:
    """Whether the statistics are all that a detailed `Monitor` collects of a head that matches and compares."""
    return "num_negatives" in statistics


def quantiles(counts: Tensor, edges: Tensor, shares: tuple[float, ...]) -> list[float] | None:
    """Quantiles of a histogram, linear within its bins; None if it is empty.

    Args:
        counts: (n,); edges: (n + 1,) ascending.
    """
    total = counts.sum().item()
    if total == 0:
        return None
    cumulative = torch.nn.functional.pad(counts.double().cumsum(0), (1, 0))
    found = []
    for share in shares:
        bin = int(torch.searchsorted(cumulative, share * total).clamp(1, len(counts))) - 1
        inside = (share * total - cumulative[bin]) / counts[bin].clamp(min=1)
        found.append((edges[bin] + inside * (edges[bin + 1] - edges[bin])).item())
    return found


def median_of(records: Sequence[Record], name: str) -> float | None:
    """Median of a number, or of the middle quantile of a list of three, over the records that have it."""
    values = [record[name] for record in records if record.get(name) is not None]
    return median(value[1] if isinstance(value, list) else value for value in values) if values else None


def _from_statistics(statistics: dict[str, Tensor], score_thresh: float) -> Record:
    values = {name: value.item() for name, value in statistics.items() if value.dim() == 0}
    positives, negatives, objects = (values.get(f"num_{name}", 0) for name in ("positives", "negatives", "objects"))
    logits = statistics["hist_logit_positive"]
    threshold = math.log(score_thresh / (1 - score_thresh)) if 0 < score_thresh < 1 else -math.inf
    fit: Record = {}  # what a detector may have
    if "num_objects" in values:  # a detector without reference boxes does not say how they fit
        reached, overlap = values["num_objects_reached"], values["sum_reference_iou"]
        fit = {
            "num_objects": objects,
            "objects_reached": _ratio(reached, objects),
            "anchor_iou": _ratio(overlap, objects),
        }
    if "positives_per_level" in statistics:
        fit["positives_per_level"] = statistics["positives_per_level"].tolist()
    if "sum_iou" in values:  # a detector may compare no boxes
        fit["matched_iou"] = _ratio(values["sum_iou"], positives)
        fit["matched_iou_quantiles"] = quantiles(statistics["hist_iou"], IOU_EDGES, QUANTILES)
    return fit | {
        "num_negatives": negatives,
        "relevant_negatives": _ratio(values["num_relevant_negatives"], negatives),
        "precision": _ratio(values["sum_precision"], positives),
        "rank": quantiles(statistics["hist_rank"], RANK_EDGES, QUANTILES),
        "score_positive": _scores(logits, QUANTILES),
        "score_negative": _scores(statistics["hist_logit_negative"], NEGATIVE_QUANTILES),
        "above_threshold": _ratio(logits[LOGIT_EDGES[:-1] >= threshold].sum().item(), positives),
    }


def _scores(counts: Tensor, shares: tuple[float, ...]) -> list[float] | None:
    logits = quantiles(counts, LOGIT_EDGES, shares)
    return None if logits is None else torch.tensor(logits).sigmoid().tolist()


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _plain(value: Any) -> Any:
    """Four digits, which keep lines short, and None for what JSON cannot hold."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if not isinstance(value, float):
        return value
    if not math.isfinite(value):
        return None
    return int(value) if value.is_integer() and abs(value) < 1e15 else float(f"{value:.4g}")
