"""COCO's matching of detections to objects, for all images, area ranges and IoU thresholds at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .instances import Detections, GroundTruth, box_areas, paired_iou

TAU = 0.5  # IoU from which a detection can be a true positive of LRP
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
SIZES = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e10)}  # COCO's, square pixels
AREAS = {"all": (0, 1e10)} | SIZES
MAX_DETECTIONS = 100  # of an image and class
UNMATCHED = -1
BLOCK = 1 << 20  # pairs whose overlaps are computed at a time


@dataclass(frozen=True)
class Matches:
    """The object that each detection found, for A area ranges (`AREAS`) and T IoU thresholds.

    The N detections are those that take part, at most `limit` of an image and class, by class, within a class best
    first; of equal scores the earlier image first, and then the earlier detection.

    Attributes:
        truth, found: what was matched.
        thresholds: (T,) IoU.
        order: (N,) positions in `found`.
        bounds: (K + 1,) where each class begins in `order`, and where the last one ends.
        ranks: (N,) place of the detection among those of its image and class, from 0.
        matched: (A, T, N) position in `truth` of the object found, UNMATCHED for none.
        overlaps: (A, N) IoU with the object found at TAU, 0 for none.
        outside: (A, N) bool, whether the detection's area lies outside the range.
        ignored: (A, G) bool, whether the object is a crowd region or its area lies outside the range.
    """

    truth: GroundTruth
    found: Detections
    thresholds: np.ndarray
    order: np.ndarray
    bounds: np.ndarray
    ranks: np.ndarray
    matched: np.ndarray
    overlaps: np.ndarray
    outside: np.ndarray
    ignored: np.ndarray

    def of_class(self, label: int) -> slice:
        """Place of the class's detections in `order`."""
        return slice(self.bounds[label], self.bounds[label + 1])

    def outcomes(self, label: int, area: int, thresholds: int | slice = slice(None)) -> tuple[np.ndarray, np.ndarray]:
        """(T, n) bool twice: true and false positives among the class's detections; those ignored are neither."""
        part = self.of_class(label)
        matched = self.matched[area, thresholds, part]
        hit = matched != UNMATCHED
        # a detection without a match reads the last object, to no effect
        true = hit & ~self.ignored[area][matched] if hit.any() else hit
        return true, ~hit & ~self.outside[area, part]

    def num_objects(self, area: int) -> np.ndarray:
        """(K,) objects of each class that count."""
        return np.bincount(self.truth.labels[~self.ignored[area]], minlength=len(self.truth.category_ids))


def match(
    truth: GroundTruth,
    found: Detections,
    thresholds: Sequence[float] | np.ndarray = IOU_THRESHOLDS,
    limit: int = MAX_DETECTIONS,
) -> Matches:
    """Best first, a detection takes the free object of largest IoU from the threshold on; the last of equal ones; an
    ignored object only if no other qualifies. Crowd regions stay free.

    Args:
        thresholds: IoU, TAU among them.
        limit: detections of an image and class that take part, the best ones.
    """
    thresholds = np.asarray(thresholds)
    order, ranks = _best_of_each_image(truth, found, limit)
    ignored = _outside(truth.areas) | truth.crowd
    pairs = _near_pairs(truth, found.boxes[order], _group(found, truth)[order], thresholds)
    rows, picks = _greedy(*pairs, ranks, truth, ignored, thresholds)

    by_score = np.lexsort((-found.scores[order], found.labels[order]))  # stable: of equal scores the earlier image
    places = np.empty_like(by_score)
    places[by_score] = np.arange(len(order))
    matched = np.full((len(AREAS), len(thresholds), len(order)), UNMATCHED, dtype=np.int32)
    matched[:, :, places[rows]] = picks
    order, ranks = order[by_score], ranks[by_score]
    boxes = found.boxes[order]
    return Matches(
        truth=truth,
        found=found,
        thresholds=thresholds,
        order=order,
        bounds=np.searchsorted(found.labels[order], np.arange(len(truth.category_ids) + 1)),
        ranks=ranks,
        matched=matched,
        overlaps=_overlaps(truth, boxes, matched[:, thresholds.tolist().index(TAU)]),
        outside=_outside(box_areas(boxes)),
        ignored=ignored,
    )


def _best_of_each_image(truth: GroundTruth, found: Detections, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the `limit` best detections of each image and class, by class, image and score, and their ranks."""
    order = np.lexsort((-found.scores, found.images, found.labels))
    groups = _group(found, truth)[order]
    ranks = np.arange(len(order)) - np.searchsorted(groups, groups)
    return order[ranks < limit], ranks[ranks < limit]


def _overlaps(truth: GroundTruth, boxes: np.ndarray, matched: np.ndarray) -> np.ndarray:
    """(A, N) IoU of N boxes with the objects that they found."""
    overlaps = np.zeros(matched.shape)
    area, place = (matched != UNMATCHED).nonzero()
    objects = matched[area, place]
    overlaps[area, place] = paired_iou(boxes[place], truth.boxes[objects], truth.crowd[objects])
    return overlaps


def _group(instances: GroundTruth | Detections, truth: GroundTruth) -> np.ndarray:
    """One number for the class and image of each."""
    return instances.labels * len(truth.image_ids) + instances.images


def _outside(areas: np.ndarray) -> np.ndarray:
    """(A, n) bool: whether each of n areas lies outside each range."""
    lowest, highest = np.array(list(AREAS.values()), dtype=np.float64).T[:, :, None]
    return (areas < lowest) | (areas > highest)


def _near_pairs(
    truth: GroundTruth, boxes: np.ndarray, groups: np.ndarray, thresholds: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row of `boxes`, position of the object and IoU of all pairs that the lowest threshold admits, of one image and
    class; by row, and of a row the pair first that it would take first."""
    object_groups = _group(truth, truth)
    by_group = object_groups.argsort(kind="stable")
    object_groups = object_groups[by_group]
    starts, ends = (np.searchsorted(object_groups, groups, side=side) for side in ("left", "right"))
    counts, blocks = ends - starts, []
    for part in np.split(np.arange(len(boxes)), np.diff(counts.cumsum() // BLOCK).nonzero()[0] + 1):
        row = np.repeat(part, counts[part])
        within = np.arange(len(row)) - np.repeat(counts[part].cumsum() - counts[part], counts[part])
        column = by_group[starts[row] + within]
        iou = paired_iou(boxes[row], truth.boxes[column], truth.crowd[column])
        near = iou >= thresholds.min()
        blocks.append((row[near], column[near], iou[near]))
    rows, objects, ious = map(np.concatenate, zip(*blocks, strict=True))
    preference = np.lexsort((-objects, -ious, rows))
    return rows[preference], objects[preference], ious[preference]


def _greedy(
    row: np.ndarray,
    column: np.ndarray,
    iou: np.ndarray,
    ranks: np.ndarray,
    truth: GroundTruth,
    ignored: np.ndarray,
    thresholds: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """The matching itself. Detections of one rank lie in different images or classes and choose together.

    Args:
        row, column, iou: of `_near_pairs`.
        ranks: (N,).
        ignored: (A, G).
    Returns:
        (C,) rows that have a pair, and (A, T, C) the object that each takes, UNMATCHED for none.
    """
    num_areas, num_thresholds = len(ignored), len(thresholds)
    rows, first, counts = np.unique(row, return_index=True, return_counts=True)
    picks = np.full((len(rows), num_areas, num_thresholds), UNMATCHED, dtype=np.int32)
    free = np.ones((len(truth.crowd), num_areas, num_thresholds), dtype=bool)
    regular_object = ~ignored.T[:, :, None]
    by_rank = ranks[rows].argsort(kind="stable")
    for choosing in np.split(by_rank, np.diff(ranks[rows][by_rank]).nonzero()[0] + 1):
        pick, spare = (np.full((len(choosing), num_areas, num_thresholds), UNMATCHED, np.int32) for _ in range(2))
        for nth in range(counts[choosing].max(initial=0)):
            has = (counts[choosing] > nth).nonzero()[0]
            pair = first[choosing[has]] + nth
            objects = column[pair]
            admits = free[objects] & (iou[pair][:, None] >= thresholds)[:, None]
            regular = admits & regular_object[objects]
            for choice, allowed in ((pick, regular), (spare, admits)):
                choice[has] = np.where(allowed & (choice[has] == UNMATCHED), objects[:, None, None], choice[has])
        pick = np.where(pick == UNMATCHED, spare, pick)
        detection, area, threshold = (pick != UNMATCHED).nonzero()
        taken = pick[detection, area, threshold]
        free[taken, area, threshold] = truth.crowd[taken]
        picks[choosing] = pick
    return rows, picks.transpose(1, 2, 0)
