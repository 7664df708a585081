"""oLRP, its components and the LRP-optimal score thresholds, from the matching that COCO AP uses.

Oksuz, Cam, Akbas, Kalkan: Localization Recall Precision (LRP), ECCV 2018 (arXiv:1807.01696). The values are
those of the authors' own evaluator.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .matching import AREAS, TAU, UNMATCHED, Matches, match
from .pycocotools_input import instances_of

if TYPE_CHECKING:
    from pycocotools.cocoeval import COCOeval

COMPONENTS = ("oLRP", "oLRP_loc", "oLRP_fp", "oLRP_fn")
AREA_LABELS = {"oLRP_s": "small", "oLRP_m": "medium", "oLRP_l": "large"}


@dataclass(frozen=True)
class LRPCurve:
    """One class's counted detections, best first, and the LRP of keeping those up to each of them.

    Attributes:
        objects: (G,) positions of the counted objects in `Matches.truth`.
        detections: (n,) positions of the detections in `Matches.found`.
        scores: (n,) descending.
        lrp: (n,) in 0..1.
        tp, fp: (n,) true and false positives so far.
        loc_error: (n,) sum of 1 - IoU over the true positives so far.
        matched: (n,) position of the object that each found, UNMATCHED for a false positive.
        best: index of the first smallest LRP, the LRP-optimal cut; None without a true positive.
    """

    objects: np.ndarray
    detections: np.ndarray
    scores: np.ndarray
    lrp: np.ndarray
    tp: np.ndarray
    fp: np.ndarray
    loc_error: np.ndarray
    matched: np.ndarray
    best: int | None

    @property
    def num_gt(self) -> int:
        return len(self.objects)

    @property
    def kept(self) -> int:
        """Detections up to the LRP-optimal cut; 0 without a true positive."""
        return 0 if self.best is None else self.best + 1


def evaluate_lrp(matches: "Matches | COCOeval") -> dict:
    """Optimal LRP of detections matched to the ground truth.

    Every cut of a class's score-sorted detections leaves TP, FP and FN and has

        LRP = (Σ_TP (1 - IoU) / (1 - τ) + FP + FN) / (TP + FP + FN),  τ = 0.5;

    oLRP is the smallest, at the first such cut. Detections that COCO ignores are neither TP nor FP.

    Args:
        matches: of `match_detections`, or pycocotools' evaluation of boxes after `evaluate()`, with 0.5 among
            `params.iouThrs` and COCO's four area ranges. `accumulate()` is not needed. The largest of
            `params.maxDets` limits the detections.
    Returns:
        `oLRP`, `oLRP_loc` (mean 1 - IoU of the true positives), `oLRP_fp` (1 - precision), `oLRP_fn` (1 -
        recall), `oLRP_s`, `oLRP_m`, `oLRP_l`: each in 0..1, the mean over the classes where it is defined,
        -1 where there is none.
        `per_class`: category id -> {oLRP, oLRP_loc, oLRP_fp, oLRP_fn, lrp_threshold}. None where undefined:
        everything of a class without ground truth; loc, fp and threshold of a class without a true positive,
        whose oLRP and oLRP_fn are 1.
    Raises:
        ValueError: `evaluate()` has not run, or not on boxes with that IoU threshold and those area ranges.
    """
    if not isinstance(matches, Matches):
        truth, found, limit = instances_of(matches)
        matches = match(truth, found, [TAU], limit)
    category_ids = matches.truth.category_ids
    by_area = {
        name: [_class_lrp(matches, label, area) for label in range(len(category_ids))]
        for area, name in enumerate(AREAS)
    }
    metrics: dict[str, Any] = {name: _mean_defined(by_area["all"], name) for name in COMPONENTS}
    metrics |= {name: _mean_defined(by_area[area], "oLRP") for name, area in AREA_LABELS.items()}
    metrics["per_class"] = dict(zip(category_ids, by_area["all"], strict=True))
    return metrics


def lrp_curve(matches: Matches, label: int, area: int = 0) -> LRPCurve | None:
    """LRP of one class at every cut; None for a class without ground truth.

    Args:
        label: position of the class in `matches.truth.category_ids`.
        area: position in AREAS; 0 is COCO's "all".
    """
    objects = ((matches.truth.labels == label) & ~matches.ignored[area]).nonzero()[0]
    if not len(objects):
        return None
    threshold = matches.thresholds.tolist().index(TAU)
    true, false = matches.outcomes(label, area, threshold)
    counted = true | false
    is_tp, part = true[counted], matches.of_class(label)
    tp, fp = np.cumsum(is_tp), np.cumsum(~is_tp)
    loc_error = np.cumsum(np.where(is_tp, 1 - matches.overlaps[area, part][counted], 0))
    lrp = (loc_error / (1 - TAU) + fp + (len(objects) - tp)) / (len(objects) + fp)  # FN = num_gt - TP
    detections = matches.order[part][counted]
    return LRPCurve(
        objects=objects,
        detections=detections,
        scores=matches.found.scores[detections],
        lrp=lrp,
        tp=tp,
        fp=fp,
        loc_error=loc_error,
        matched=np.where(is_tp, matches.matched[area, threshold, part][counted], UNMATCHED),
        best=int(np.argmin(lrp)) if is_tp.any() else None,
    )


def _class_lrp(matches: Matches, label: int, area: int) -> dict:
    """Values of one class within one area range."""
    undefined = dict.fromkeys((*COMPONENTS, "lrp_threshold"))
    curve = lrp_curve(matches, label, area)
    if curve is None:
        return undefined
    if curve.best is None:
        return undefined | {"oLRP": 1.0, "oLRP_fn": 1.0}
    num_tp, num_fp = int(curve.tp[curve.best]), int(curve.fp[curve.best])
    return {
        "oLRP": float(curve.lrp[curve.best]),
        # Where every TP has IoU τ exactly, all cuts have LRP 1 and the first may lie before the first TP.
        "oLRP_loc": float(curve.loc_error[curve.best]) / num_tp if num_tp else None,
        "oLRP_fp": num_fp / (num_tp + num_fp),
        "oLRP_fn": 1 - num_tp / curve.num_gt,
        "lrp_threshold": float(curve.scores[curve.best]),
    }


def _mean_defined(values: list[dict], name: str) -> float:
    defined = [value[name] for value in values if value[name] is not None]
    return float(np.mean(defined)) if defined else -1.0
