"""Analysis of the matching behind AP and oLRP beyond its averages: curves, errors of each class and image, confusion.

Everything is taken at the LRP-optimal cut of each class, with the matches that COCO AP and oLRP count: the numbers here
add up to theirs.
"""

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
from pycocotools import mask as coco_mask

from engine.metrics.average_precision import RECALL_POINTS, precisions
from engine.metrics.instances import Detections, GroundTruth
from engine.metrics.lrp import LRPCurve, lrp_curve
from engine.metrics.matching import TAU, UNMATCHED, Matches

MAX_CONFUSED = 20  # classes that a confusion matrix shows one by one


@dataclass
class Errors:
    """Counts of a class or an image at the operating point, and the LRP that they make.

    Attributes:
        tp, fp, fn: true positives, false positives and missed objects.
        loc_error: sum of 1 - IoU over the true positives.
    """

    tp: int = 0
    fp: int = 0
    fn: int = 0
    loc_error: float = 0.0

    @property
    def budget(self) -> tuple[float, float, float] | None:
        """Shares of LRP that localisation, false positives and misses make: their sum is LRP. None without any."""
        total = self.tp + self.fp + self.fn
        if total == 0:
            return None
        return self.loc_error / (1 - TAU) / total, self.fp / total, self.fn / total

    @property
    def lrp(self) -> float | None:
        return None if self.budget is None else sum(self.budget)


@dataclass(frozen=True)
class Outcome:
    """What became of an image's objects and detections at the operating points, over all classes.

    Attributes:
        right, false: positions in `Matches.found`.
        missed: positions in `Matches.truth`.
    """

    right: list[int] = field(default_factory=list)
    false: list[int] = field(default_factory=list)
    missed: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Analysis:
    """An evaluation in detail; K classes in the order of their category ids.

    Attributes:
        class_names: K names.
        num_objects: (K,) counted objects, crowds left out.
        recall: (R,) COCO's recall points.
        precision: name of the IoU threshold ("0.50", "0.75", "0.50:0.95") -> (K, R) interpolated precision, NaN for
            a class without ground truth. The means over recall are the classes' AP50, AP75 and AP.
        curves: LRP at every cut; None for a class without ground truth.
        classes: errors of each class at its LRP-optimal cut; None without ground truth. Without a true positive no
            detection is kept, and every object is missed.
        confusion: (K + 1, K + 1) counts at those cuts; row: class of the object, last row: no object; column: class
            of the detection, last column: missed. The diagonal holds the true positives, so a row of a class adds
            up to its objects and a column to its detections. A false positive counts for a missed object of another
            class that it overlaps with IoU ≥ 0.5, best score first and one for one, else for the last row.
        images: image id -> its errors, over all classes; images without objects and detections are left out.
        outcomes: image id -> which they are.
    """

    class_names: list[str]
    num_objects: np.ndarray
    recall: np.ndarray
    precision: dict[str, np.ndarray]
    curves: list[LRPCurve | None]
    classes: list[Errors | None]
    confusion: np.ndarray
    images: dict[int, Errors]
    outcomes: dict[int, Outcome]

    @property
    def budget(self) -> tuple[float, float, float] | None:
        """Means of the classes' budgets: they add up to oLRP. None without ground truth."""
        budgets = [errors.budget for errors in self.classes if errors is not None and errors.budget is not None]
        if not budgets:
            return None
        localisation, false_positives, misses = np.mean(budgets, axis=0).tolist()
        return localisation, false_positives, misses

    def best_and_worst(self, count: int) -> tuple[list[int], list[int]]:
        """Ids of the images of lowest and of highest LRP, at most `count` each, no image in both.

        Of equal LRP the one with more right detections is better, and the one with more errors worse. None is among the
        worst whose LRP and errors are those of one of the best.
        """

        def badness(image_id: int) -> tuple[float, int, int]:
            errors = self.images[image_id]
            assert errors.lrp is not None  # an image without anything to count is not here
            return errors.lrp, errors.fp + errors.fn, -errors.tp

        ranked = sorted(self.images, key=lambda image_id: (badness(image_id), image_id))
        best = ranked[: min(count, len(ranked) - len(ranked) // 2)]
        worst = [image_id for image_id in ranked[len(best) :] if badness(image_id) > badness(best[-1])]
        return best, worst[::-1][:count]

    def most_confused(self) -> tuple[list[str], np.ndarray]:
        """Names of k classes and their (k + 1, k + 1) part of `confusion`.

        All classes, or of more than 20 those most often taken for another or for which another is taken, and the
        rest as one class "N other classes", so that rows and columns add up as in `confusion`.
        """
        between = self.confusion[:-1, :-1].copy()
        np.fill_diagonal(between, 0)
        if len(between) <= MAX_CONFUSED:
            return self.class_names, self.confusion
        # of equally confused classes those with more objects first
        order = np.lexsort((-self.confusion[:-1].sum(axis=1), -between.sum(axis=0) - between.sum(axis=1)))
        shown = sorted(order[:MAX_CONFUSED].tolist())
        group = np.full(len(self.confusion), MAX_CONFUSED)
        group[shown], group[-1] = np.arange(MAX_CONFUSED), MAX_CONFUSED + 1
        join = np.eye(MAX_CONFUSED + 2, dtype=np.int64)[group]
        names = [self.class_names[label] for label in shown]
        return [*names, f"{len(between) - MAX_CONFUSED} other classes"], join.T @ self.confusion @ join


def analyse(matches: Matches) -> Analysis:
    """Details of matched detections (see `match_detections`), over all areas."""
    curves = [lrp_curve(matches, label) for label in range(len(matches.truth.category_ids))]
    confusion, images, outcomes = _count(matches, curves)
    return Analysis(
        class_names=matches.truth.class_names,
        num_objects=matches.num_objects(0),
        recall=RECALL_POINTS,
        precision=_precision(matches),
        curves=curves,
        classes=[None if curve is None else _class_errors(curve) for curve in curves],
        confusion=confusion,
        images=images,
        outcomes=outcomes,
    )


def _precision(matches: Matches) -> dict[str, np.ndarray]:
    precision = precisions(matches).transpose(0, 2, 1)  # (thresholds, K, R), -1 undefined
    precision = np.where(precision < 0, np.nan, precision)
    at = {f"{threshold:.2f}": index for index, threshold in enumerate(matches.thresholds)}
    return {"0.50": precision[at["0.50"]], "0.75": precision[at["0.75"]], "0.50:0.95": precision.mean(axis=0)}


def _class_errors(curve: LRPCurve) -> Errors:
    if curve.best is None:
        return Errors(fn=curve.num_gt)
    tp, fp = int(curve.tp[curve.best]), int(curve.fp[curve.best])
    return Errors(tp, fp, curve.num_gt - tp, float(curve.loc_error[curve.best]))


def _count(matches: Matches, curves: list[LRPCurve | None]) -> tuple[np.ndarray, dict[int, Errors], dict[int, Outcome]]:
    """The confusion matrix, and the errors of each image: how many and which."""
    truth, found, num_classes = matches.truth, matches.found, len(curves)
    confusion = np.zeros((num_classes + 1, num_classes + 1), dtype=np.int64)
    images: dict[int, Errors] = defaultdict(Errors)
    outcomes: dict[int, Outcome] = defaultdict(Outcome)
    for label, curve in enumerate(curves):
        if curve is None:
            continue
        matched, detections = curve.matched[: curve.kept], curve.detections[: curve.kept]
        loc_errors = np.diff(curve.loc_error[: curve.kept], prepend=0.0)
        for detection, loc_error, is_true in zip(
            detections.tolist(), loc_errors.tolist(), matched != UNMATCHED, strict=True
        ):
            image_id = truth.image_ids[found.images[detection]]
            if is_true:
                confusion[label, label] += 1
                outcomes[image_id].right.append(detection)
                images[image_id].tp += 1
                images[image_id].loc_error += loc_error
            else:
                outcomes[image_id].false.append(detection)
                images[image_id].fp += 1
        for gt in np.setdiff1d(curve.objects, matched).tolist():
            image_id = truth.image_ids[truth.images[gt]]
            outcomes[image_id].missed.append(gt)
            images[image_id].fn += 1
    for outcome in outcomes.values():
        pairs, alone, lost = _confused(outcome.false, outcome.missed, truth, found)
        for gt, detection in pairs:
            confusion[truth.labels[gt], found.labels[detection]] += 1
        for detection in alone:
            confusion[-1, found.labels[detection]] += 1
        for gt in lost:
            confusion[truth.labels[gt], -1] += 1
    return confusion, dict(images), dict(outcomes)


def _confused(
    false: list[int], missed: list[int], truth: GroundTruth, found: Detections
) -> tuple[list[tuple[int, int]], list[int], list[int]]:
    """Pairs of a missed object and a false positive on it; the false positives and the objects that are left."""
    pairs, alone = [], []
    false = sorted(false, key=lambda detection: -found.scores[detection])
    overlaps = coco_mask.iou(found.boxes[false], truth.boxes[missed], [0] * len(missed))
    overlaps = np.array(overlaps, dtype=np.float64).reshape(len(false), len(missed))  # a list where one is empty
    free = np.ones(len(missed), dtype=bool)
    for detection, row in zip(false, overlaps, strict=True):
        row = np.where(free, row, -1.0)
        if len(row) and row.max() >= TAU:
            free[row.argmax()] = False
            pairs.append((missed[row.argmax()], detection))
        else:
            alone.append(detection)
    return pairs, alone, [gt for gt, is_free in zip(missed, free, strict=True) if is_free]
