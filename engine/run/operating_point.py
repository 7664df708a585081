"""The score from which each class is shown."""

from engine.run.load import DetectorInfo

DEFAULT_THRESHOLD = 0.5  # of a class without an LRP-optimal one


def score_thresholds(info: DetectorInfo, threshold: float | None = None) -> list[float]:
    """The score from which each of the K classes is shown: its LRP-optimal one, 0.5 where it has none.

    Args:
        threshold: overrides them all.
    Raises:
        ValueError: it is not in 0..1.
    """
    if threshold is not None:
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold {threshold}: must be a score from 0 to 1")
        return [threshold] * len(info.classes)
    optimal = info.thresholds or [None] * len(info.classes)
    return [DEFAULT_THRESHOLD if value is None else value for value in optimal]


def classes_without_threshold(info: DetectorInfo) -> list[str]:
    """Classes that the checkpoint's evaluation found no true positive of, or all where there was no evaluation."""
    if info.thresholds is None:
        return info.classes
    return [name for name, value in zip(info.classes, info.thresholds, strict=True) if value is None]
