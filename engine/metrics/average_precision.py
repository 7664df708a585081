"""COCO's AP and AR of matched detections, number for number those of pycocotools."""

import numpy as np

from .matching import AREAS, IOU_THRESHOLDS, MAX_DETECTIONS, Matches

RECALL_POINTS = np.linspace(0, 1, 101)
COCO_STATS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
ALL, SMALL, MEDIUM, LARGE = range(len(AREAS))


def coco_stats(matches: Matches, overall: np.ndarray) -> dict[str, float]:
    """`COCO_STATS` of matches at `IOU_THRESHOLDS`: fractions of 1, -1 where no object defines the value.

    Args:
        overall: `precisions(matches)`.
    """
    small, medium, large = (precisions(matches, area) for area in (SMALL, MEDIUM, LARGE))
    at_50, at_75 = (overall[np.isclose(IOU_THRESHOLDS, iou)] for iou in (0.5, 0.75))
    recalled = [recalls(matches, ALL, limit) for limit in (1, 10, MAX_DETECTIONS)]
    recalled += [recalls(matches, area, MAX_DETECTIONS) for area in (SMALL, MEDIUM, LARGE)]
    values = map(_mean_defined, (overall, at_50, at_75, small, medium, large, *recalled))
    return dict(zip(COCO_STATS, values, strict=True))


def precisions(matches: Matches, area: int = ALL) -> np.ndarray:
    """(T, R, K) interpolated precision at each IoU threshold, recall point and class; -1 without objects."""
    num_objects = matches.num_objects(area)
    result = np.where(num_objects > 0, np.zeros((len(matches.thresholds), len(RECALL_POINTS), 1)), -1.0)
    for label in num_objects.nonzero()[0].tolist():
        true, false = matches.outcomes(label, area)
        num_false = false.cumsum(axis=1)
        for threshold, is_true in enumerate(true):
            # recall, and precision as the envelope has it, rise at true positives alone
            places = is_true.nonzero()[0]
            num_true = np.arange(1, len(places) + 1)
            precision = num_true / (num_false[threshold, places] + num_true + np.spacing(1))
            envelope = np.maximum.accumulate(precision[::-1])[::-1]
            first = np.searchsorted(num_true / num_objects[label], RECALL_POINTS)
            first = first[first < len(places)]
            result[threshold, : len(first), label] = envelope[first]
    return result


def recalls(matches: Matches, area: int, limit: int) -> np.ndarray:
    """(T, K) recall of the first `limit` detections of each image and class; -1 without objects."""
    num_objects = matches.num_objects(area)
    result = np.full((len(matches.thresholds), len(num_objects)), -1.0)
    for label in num_objects.nonzero()[0].tolist():
        true, _ = matches.outcomes(label, area)
        among_first = matches.ranks[matches.of_class(label)] < limit
        result[:, label] = np.count_nonzero(true & among_first, axis=1) / num_objects[label]
    return result


def _mean_defined(values: np.ndarray) -> float:
    defined = values[values > -1]
    return float(defined.mean()) if len(defined) else -1.0
