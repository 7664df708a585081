"""oLRP, its components and the LRP-optimal score thresholds, from the matching that COCO AP uses.

Oksuz, Cam, Akbas, Kalkan: Localization Recall Precision (LRP), ECCV 2018 (arXiv:1807.01696). The values are
those of the authors' own evaluator.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools.cocoeval import COCOeval

TAU = 0.5  # IoU from which a detection can be a true positive; localisation errors are in units of 1 - TAU
COMPONENTS = ("oLRP", "oLRP_loc", "oLRP_fp", "oLRP_fn")
AREA_LABELS = {"oLRP_s": "small", "oLRP_m": "medium", "oLRP_l": "large"}


@dataclass(frozen=True)
class LRPCurve:
    """One class's counted detections, best first, and the LRP of keeping those up to each of them.

    Attributes:
        object_ids: (G,) ids of the counted objects.
        scores: (n,) descending.
        lrp: (n,) in 0..1.
        tp, fp: (n,) true and false positives so far.
        loc_error: (n,) sum of 1 - IoU over the true positives so far.
        dt_ids: (n,) ids of the detections.
        matched_ids: (n,) id of the object matched to each, 0 for a false positive.
        best: index of the first smallest LRP, the LRP-optimal cut; None without a true positive.
    """

    object_ids: np.ndarray
    scores: np.ndarray
    lrp: np.ndarray
    tp: np.ndarray
    fp: np.ndarray
    loc_error: np.ndarray
    dt_ids: np.ndarray
    matched_ids: np.ndarray
    best: int | None

    @property
    def num_gt(self) -> int:
        return len(self.object_ids)

    @property
    def kept(self) -> int:
        """Detections up to the LRP-optimal cut; 0 without a true positive."""
        return 0 if self.best is None else self.best + 1


def evaluate_lrp(coco_eval: COCOeval) -> dict:
    """Optimal LRP of detections that `coco_eval` has matched to the ground truth.

    Every cut of a class's score-sorted detections leaves TP, FP and FN and has

        LRP = (Σ_TP (1 - IoU) / (1 - τ) + FP + FN) / (TP + FP + FN),  τ = 0.5;

    oLRP is the smallest, at the first such cut. Detections that COCO ignores are neither TP nor FP.

    Args:
        coco_eval: bbox evaluation after `evaluate()`, with 0.5 among `params.iouThrs` and COCO's four area
            ranges. `accumulate()` is not needed. The largest of `params.maxDets` limits the detections.
    Returns:
        `oLRP`, `oLRP_loc` (mean 1 - IoU of the true positives), `oLRP_fp` (1 - precision), `oLRP_fn` (1 -
        recall), `oLRP_s`, `oLRP_m`, `oLRP_l`: each in 0..1, the mean over the classes where it is defined,
        -1 where there is none.
        `per_class`: category id -> {oLRP, oLRP_loc, oLRP_fp, oLRP_fn, lrp_threshold}. None where undefined:
        everything of a class without ground truth; loc, fp and threshold of a class without a true positive,
        whose oLRP and oLRP_fn are 1.
    Raises:
        ValueError: `evaluate()` has not run, or not with that IoU threshold and those area ranges.
    """
    params = coco_eval._paramsEval
    if not params:
        raise ValueError("evaluate_lrp needs coco_eval.evaluate() to have run")
    if TAU not in params.iouThrs or not {"all", *AREA_LABELS.values()} <= set(params.areaRngLbl):
        raise ValueError("evaluate_lrp needs 0.5 in params.iouThrs and the areas all, small, medium, large")

    def classwise(area_label: str) -> list[dict]:
        area = params.areaRngLbl.index(area_label)
        return [_class_lrp(coco_eval, category, area) for category in range(len(params.catIds))]

    overall = classwise("all")
    metrics: dict[str, Any] = {name: _mean_defined(overall, name) for name in COMPONENTS}
    metrics |= {name: _mean_defined(classwise(label), "oLRP") for name, label in AREA_LABELS.items()}
    metrics["per_class"] = dict(zip(np.asarray(params.catIds).tolist(), overall, strict=True))
    return metrics


def lrp_curve(coco_eval: COCOeval, category: int, area: int = 0) -> LRPCurve | None:
    """LRP of one class at every cut; None for a class without ground truth.

    Args:
        coco_eval: as for `evaluate_lrp`.
        category: position in `params.catIds`.
        area: position in `params.areaRng`; 0 is COCO's "all".
    """
    params = coco_eval._paramsEval
    num_images = len(params.imgIds)
    start = (category * len(params.areaRng) + area) * num_images
    images = [image for image in coco_eval.evalImgs[start : start + num_images] if image is not None]
    object_ids = [
        gt for image in images for gt, ignore in zip(image["gtIds"], image["gtIgnore"], strict=True) if not ignore
    ]
    if not object_ids:
        return None

    threshold = list(params.iouThrs).index(TAU)
    scores = np.concatenate([image["dtScores"] for image in images])
    matched_ids = np.concatenate([image["dtMatches"][threshold] for image in images]).astype(np.int64)
    ious = np.concatenate([_matched_ious(coco_eval, image, threshold) for image in images])
    dt_ids = np.concatenate([image["dtIds"] for image in images]).astype(np.int64)
    counted = ~np.concatenate([image["dtIgnore"][threshold] for image in images])
    order = np.flatnonzero(counted)
    order = order[np.argsort(-scores[order], kind="stable")]
    matched_ids = matched_ids[order]
    is_tp = matched_ids > 0
    tp, fp = np.cumsum(is_tp), np.cumsum(~is_tp)
    loc_error = np.cumsum(np.where(is_tp, 1 - ious[order], 0))
    lrp = (loc_error / (1 - TAU) + fp + (len(object_ids) - tp)) / (len(object_ids) + fp)  # FN = num_gt - TP
    return LRPCurve(
        object_ids=np.array(object_ids),
        scores=scores[order],
        lrp=lrp,
        tp=tp,
        fp=fp,
        loc_error=loc_error,
        dt_ids=dt_ids[order],
        matched_ids=matched_ids,
        best=int(np.argmin(lrp)) if is_tp.any() else None,
    )


def _class_lrp(coco_eval: COCOeval, category: int, area: int) -> dict:
    """Values of one class (position in catIds) within one area range (position in areaRng)."""
    undefined = dict.fromkeys((*COMPONENTS, "lrp_threshold"))
    curve = lrp_curve(coco_eval, category, area)
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


def _matched_ious(coco_eval: COCOeval, image: dict, threshold: int) -> np.ndarray:
    """IoU of each detection of an entry of `evalImgs` with the ground truth matched to it, 0 if unmatched."""
    ious = np.zeros(len(image["dtScores"]))
    matches = image["dtMatches"][threshold]
    rows = np.flatnonzero(matches)
    if len(rows):
        key = image["image_id"], image["category_id"]
        # Columns of coco_eval.ious are in the order of loading, not in the ignored-last one of gtIds.
        columns = {gt["id"]: column for column, gt in enumerate(coco_eval._gts[key])}
        ious[rows] = coco_eval.ious[key][rows, [columns[gt_id] for gt_id in matches[rows]]]
    return ious


def _mean_defined(values: list[dict], name: str) -> float:
    defined = [value[name] for value in values if value[name] is not None]
    return float(np.mean(defined)) if defined else -1.0
