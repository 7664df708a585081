"""What of a run's detections on the test split is kept: enough for AP of any choice of its images, and small."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import IO

import numpy as np

from data.files import write_atomically
from engine.metrics.average_precision import ALL, RECALL_POINTS
from engine.metrics.matching import Matches


@dataclass(frozen=True)
class KeptMatches:
    """Outcomes of N detections, by class, within a class best first, at up to 16 IoU thresholds.

    Attributes:
        images: (N,) uint32, place of the detection's image.
        true, false: (N,) uint16, bit t for a true or false positive at threshold t; neither for what is ignored.
        bounds: (K + 1,) where each class begins, and where the last one ends.
        objects: (K, I) uint32, objects of each class and image that count.
        num_thresholds: () int.
    """

    images: np.ndarray
    true: np.ndarray
    false: np.ndarray
    bounds: np.ndarray
    objects: np.ndarray
    num_thresholds: np.ndarray

    @classmethod
    def of(cls, matches: Matches) -> "KeptMatches":
        """Of all sizes of objects."""
        num_classes, num_images = len(matches.truth.category_ids), len(matches.truth.image_ids)
        bits = 1 << np.arange(len(matches.thresholds), dtype=np.uint16)[:, None]
        outcomes = [matches.outcomes(label, ALL) for label in range(num_classes)]
        true, false = (
            np.concatenate([(of_class[kind] * bits).sum(0).astype(np.uint16) for of_class in outcomes])
            for kind in (0, 1)
        )
        counted = ~matches.ignored[ALL]
        objects = np.zeros((num_classes, num_images), dtype=np.uint32)
        np.add.at(objects, (matches.truth.labels[counted], matches.truth.images[counted]), 1)
        images = matches.found.images[matches.order].astype(np.uint32)
        return cls(images, true, false, matches.bounds, objects, np.array(len(matches.thresholds)))

    def average_precision(self, weights: np.ndarray) -> float:
        """COCO AP where image i counts `weights[i]` times, as if so many copies of it stood side by side.

        Copies of a detection have one score. The precision after the last of them is the highest of theirs and holds
        for all, since interpolated precision is the highest at that recall or beyond.

        Args:
            weights: (I,) integers ≥ 0.
        Returns:
            fraction of 1; NaN if no object is left.
        """
        num_objects = self.objects @ weights
        precisions = [
            self._interpolated(slice(self.bounds[label], self.bounds[label + 1]), weights, num_objects[label])
            for label in num_objects.nonzero()[0].tolist()
        ]
        return float(np.mean(precisions)) if precisions else float("nan")

    def _interpolated(self, part: slice, weights: np.ndarray, num_objects: int) -> list[float]:
        """Mean interpolated precision of a class at each threshold."""
        of_image = weights[self.images[part]]
        result = []
        for threshold in range(int(self.num_thresholds)):
            is_true = (self.true[part] >> threshold & 1).astype(bool) & (of_image > 0)
            num_false = np.cumsum((self.false[part] >> threshold & 1) * of_image)
            places = is_true.nonzero()[0]
            num_true = np.cumsum(of_image[places])
            precision = num_true / (num_true + num_false[places] + np.spacing(1))
            envelope = np.maximum.accumulate(precision[::-1])[::-1]
            first = np.searchsorted(num_true / num_objects, RECALL_POINTS)
            result.append(float(envelope[first[first < len(places)]].sum()) / len(RECALL_POINTS))
        return result

    def save(self, path: Path) -> None:
        """Writes an .npz file of some kilobytes."""
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        write_atomically(path, lambda file: np.savez_compressed(file, **arrays))

    @classmethod
    def load(cls, file: Path | IO[bytes]) -> "KeptMatches":
        """Raises OSError, EOFError, ValueError, KeyError, RuntimeError, zipfile.BadZipFile or zlib.error: not such a
        file."""
        with np.load(file, allow_pickle=False) as arrays:
            return cls(*(arrays[field.name] for field in fields(cls)))
