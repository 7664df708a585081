"""Score thresholds to deploy a detector with, and what it does there."""

import numpy as np

from .lrp import LRPCurve

POINTS = ("lrp_precision", "lrp_recall", "f1", "f1_threshold", "f1_precision", "f1_recall")


def operating_points(curve: LRPCurve | None) -> dict[str, float | None]:
    """Precision and recall of a class at its LRP-optimal threshold and at the one of largest F1, at IoU 0.5.

    Precision and recall are those of all detections whose score reaches the threshold. Where several detections have
    the LRP-optimal score, LRP itself may be smallest in the midst of them.

    Args:
        curve: of the class; None without ground truth.
    Returns:
        POINTS, each None without a true positive. `f1`: the largest F1 of any threshold, `f1_threshold`: the highest
        one that reaches it.
    """
    if curve is None or curve.best is None:
        return dict.fromkeys(POINTS)
    # a threshold keeps all detections of equal score
    ends = np.append(curve.scores[1:] < curve.scores[:-1], True).nonzero()[0]
    f1 = 2 * curve.tp[ends] / (curve.tp[ends] + curve.fp[ends] + curve.num_gt)  # 2 TP / (2 TP + FP + FN)
    best = ends[f1.argmax()]
    lrp_best = ends[np.searchsorted(ends, curve.best)]
    values = (
        *_precision_and_recall(curve, lrp_best),
        float(f1.max()),
        float(curve.scores[best]),
        *_precision_and_recall(curve, best),
    )
    return dict(zip(POINTS, values, strict=True))


def _precision_and_recall(curve: LRPCurve, last: int) -> tuple[float, float]:
    tp, fp = int(curve.tp[last]), int(curve.fp[last])
    return tp / (tp + fp), tp / curve.num_gt
