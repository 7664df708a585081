"""pycocotools' evaluation of boxes with the same results, by arithmetic on arrays instead of loops over pairs."""

import copy
from operator import itemgetter

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.cocoeval import COCOeval

UNMATCHED = -1


class BoxEvaluation(COCOeval):
    """COCOeval for boxes and per class, whose `evaluate` and `accumulate` do the arithmetic of pycocotools in numpy.

    The attributes are pycocotools', number for number, with what nothing reads left out: "gtMatches" of the entries
    of `evalImgs`, the date in `eval`, and in `ious` the images and classes without both objects and detections. Ids of
    annotations must be positive.
    """

    def evaluate(self) -> None:
        params = self.params
        params.imgIds = list(np.unique(params.imgIds))
        params.catIds = list(np.unique(params.catIds))
        params.maxDets = sorted(params.maxDets)
        self._prepare()
        self.ious: dict[tuple[int, int], np.ndarray] = {}
        self.evalImgs = []
        for category_id in params.catIds:
            self.evalImgs += self._evaluate_category(category_id)
        self._paramsEval = copy.deepcopy(params)

    def _evaluate_category(self, category_id: int) -> list[dict | None]:
        """Entries of `evalImgs` of one class: by area range, then by image."""
        params = self.params
        areas = np.array(params.areaRng, dtype=np.float64)[:, :, None]  # (A, 2, 1)
        entries: list[list[dict | None]] = [[None] * len(params.imgIds) for _ in params.areaRng]
        for position, image_id in enumerate(params.imgIds):
            key = image_id, category_id
            objects, detections = self._gts.get(key, []), self._dts.get(key, [])
            if not objects and not detections:
                continue
            # stable, as equal scores keep their order
            detections = sorted(detections, key=itemgetter("score"), reverse=True)[: params.maxDets[-1]]
            crowd = np.array([o["iscrowd"] for o in objects], dtype=bool)
            ignored = _outside([o["area"] for o in objects], areas) | crowd
            dt_ignored = _outside([d["area"] for d in detections], areas)[:, None].repeat(len(params.iouThrs), axis=1)
            dt_matches = np.zeros(dt_ignored.shape)
            gt_ids = np.array([o["id"] for o in objects])
            if objects and detections:
                ious = coco_mask.iou([d["bbox"] for d in detections], [o["bbox"] for o in objects], crowd.astype(int))
                self.ious[key] = ious
                matched = greedy_matches(ious, ignored, crowd, np.asarray(params.iouThrs))
                area, threshold, detection = (matched != UNMATCHED).nonzero()
                columns = matched[area, threshold, detection]
                dt_matches[area, threshold, detection] = gt_ids[columns]
                dt_ignored[area, threshold, detection] = ignored[area, columns]
            dt_ids, scores = [d["id"] for d in detections], [d["score"] for d in detections]
            for index, area_range in enumerate(params.areaRng):
                order = ignored[index].argsort(kind="stable")
                entries[index][position] = {
                    "image_id": image_id,
                    "category_id": category_id,
                    "aRng": area_range,
                    "maxDet": params.maxDets[-1],
                    "dtIds": dt_ids,
                    "gtIds": gt_ids[order].tolist(),
                    "dtMatches": dt_matches[index],
                    "dtScores": scores,
                    "gtIgnore": ignored[index][order].astype(int),
                    "dtIgnore": dt_ignored[index],
                }
        return [entry for of_area in entries for entry in of_area]

    def accumulate(self) -> None:
        params, num_images = self.params, len(self.params.imgIds)
        num_areas, num_limits = len(params.areaRng), len(params.maxDets)
        counts = [len(params.iouThrs), len(params.recThrs), len(params.catIds), num_areas, num_limits]
        precision, scores = np.full(counts, -1.0), np.full(counts, -1.0)
        recall = np.full([counts[0], *counts[2:]], -1.0)
        for first in range(0, len(self.evalImgs), max(1, num_images)):
            category, area = divmod(first // num_images, num_areas)
            entries = [entry for entry in self.evalImgs[first : first + num_images] if entry is not None]
            num_objects = sum(int((entry["gtIgnore"] == 0).sum()) for entry in entries)
            if num_objects == 0:
                continue
            # all detections best first, and the rank of each in its image, by which maxDets cuts
            ranks = np.concatenate([np.arange(len(entry["dtScores"])) for entry in entries])
            all_scores = np.concatenate([entry["dtScores"] for entry in entries])
            order = np.argsort(-all_scores, kind="stable")
            matched = np.concatenate([entry["dtMatches"] for entry in entries], axis=1)[:, order] != 0
            counted = ~np.concatenate([entry["dtIgnore"] for entry in entries], axis=1)[:, order]
            for limit in range(num_limits):
                kept = ranks[order] < params.maxDets[limit]
                curves = _curves(
                    (matched & counted)[:, kept],
                    (~matched & counted)[:, kept],
                    all_scores[order][kept],
                    num_objects,
                    np.asarray(params.recThrs),
                )
                precision[:, :, category, area, limit], scores[:, :, category, area, limit] = curves[:2]
                recall[:, category, area, limit] = curves[2]
        self.eval = {"params": params, "counts": counts, "precision": precision, "recall": recall, "scores": scores}


def greedy_matches(ious: np.ndarray, ignored: np.ndarray, crowd: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """COCO's matching of one image and class, for all area ranges and IoU thresholds at once.

    Best first, a detection takes the free object of largest IoU from the threshold on; the last of equal ones; an
    ignored object only if no other qualifies. Crowd regions stay free.

    Args:
        ious: (D, G), best detection first.
        ignored: (A, G) bool, whether an area range ignores the object.
        crowd: (G,) bool.
        thresholds: (T,).
    Returns:
        (A, T, D) int64, the object of each detection, UNMATCHED for none.
    """
    lowest = np.minimum(thresholds, 1 - 1e-10)[:, None]
    matches = np.full((len(ignored), len(thresholds), len(ious)), UNMATCHED)
    free = np.ones((len(ignored), len(thresholds), len(crowd)), dtype=bool)
    near = ious >= lowest.min()
    for detection in near.any(axis=1).nonzero()[0]:
        objects = near[detection].nonzero()[0][::-1]  # so that argmax finds the last of equal ones
        overlap = ious[detection, objects]
        pool = free[:, :, objects] & (overlap >= lowest)
        regular = pool & ~ignored[:, None, objects]
        pool = np.where(regular.any(axis=2, keepdims=True), regular, pool)
        chosen = objects[np.where(pool, overlap, -1.0).argmax(axis=2)]
        area, threshold = pool.any(axis=2).nonzero()
        chosen = chosen[area, threshold]
        matches[area, threshold, detection] = chosen
        free[area, threshold, chosen] = crowd[chosen]
    return matches


def _outside(values: list[float], areas: np.ndarray) -> np.ndarray:
    """(A, n) bool: whether each of n areas lies outside each of the (A, 2, 1) ranges."""
    numbers = np.array(values, dtype=np.float64)
    return (numbers < areas[:, 0]) | (numbers > areas[:, 1])


def _curves(
    tp: np.ndarray, fp: np.ndarray, scores: np.ndarray, num_objects: int, recall_points: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Interpolated precision and score (T, R) at the recall points, 0 beyond the recall reached, which is (T,).

    Args:
        tp, fp: (T, n) bool, best first.
        scores: (n,).
    """
    precision, score = (np.zeros((len(tp), len(recall_points))) for _ in range(2))
    if not len(scores):
        return precision, score, np.zeros(len(tp))
    tp, fp = np.cumsum(tp, axis=1).astype(float), np.cumsum(fp, axis=1).astype(float)
    recall = tp / num_objects
    envelope = np.maximum.accumulate((tp / (fp + tp + np.spacing(1)))[:, ::-1], axis=1)[:, ::-1]
    for threshold, reached in enumerate(recall):
        first = np.searchsorted(reached, recall_points, side="left")
        first = first[first < len(scores)]
        precision[threshold, : len(first)] = envelope[threshold, first]
        score[threshold, : len(first)] = scores[first]
    return precision, score, recall[:, -1]
