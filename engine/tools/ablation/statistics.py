"""Statistics of paired runs: Student's interval and test, the bootstrap over images and seeds, Holm's correction."""

import math
from collections.abc import Sequence

import numpy as np

from engine.tools.ablation.kept_matches import KeptMatches

LEVEL = 0.95


def paired_difference(values: Sequence[float], reference: Sequence[float]) -> tuple[float, float | None]:
    """Mean of the differences of runs with the same seed, and half the width of its 95 % interval.

    The interval is Student's, of n differences: ± t sd / √n; None for a single one.
    """
    differences = np.asarray(values) - np.asarray(reference)
    count = len(differences)
    if count < 2:
        return float(differences.mean()), None
    return float(differences.mean()), float(_t_quantile(count - 1) * differences.std(ddof=1) / math.sqrt(count))


def _t_quantile(freedom: int) -> float:
    """The t that |T| exceeds with probability 1 - LEVEL, by bisection."""
    low, high = 0.0, 100.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _two_sided(middle, freedom) > 1 - LEVEL else (low, middle)
    return high


def paired_p_value(values: Sequence[float], reference: Sequence[float]) -> float:
    """Two-sided p of Student's test that the mean difference of two or more pairs is 0."""
    differences = np.asarray(values) - np.asarray(reference)
    deviation = float(differences.std(ddof=1))
    if deviation == 0:
        return 1.0 if differences.mean() == 0 else 0.0
    return _two_sided(abs(float(differences.mean())) / deviation * math.sqrt(len(differences)), len(differences) - 1)


def _two_sided(t: float, freedom: int) -> float:
    """P(|T| ≥ t) of Student's distribution, the finite series of Abramowitz and Stegun 26.7.3 and 26.7.4."""
    angle = math.atan(t / math.sqrt(freedom))
    cosine = math.cos(angle)
    even = freedom % 2 == 0
    term = 1.0 if even else cosine
    total = term if even or freedom > 1 else 0.0
    for k in range(2 if even else 3, freedom - 1, 2):
        term *= (k - 1) / k * cosine**2
        total += term
    total *= math.sin(angle)
    return 1 - (total if even else 2 / math.pi * (angle + total))


def bootstrap_means(runs: Sequence[KeptMatches], draws: int) -> np.ndarray:
    """(draws,) mean AP of n runs, of images and runs drawn with replacement.

    An image drawn twice counts twice. A class without objects among the images drawn is left out of that draw's means.
    As many other runs on the same images get the same draws: the difference of two such results is that of pairs.

    Args:
        runs: matches on the same images in the same order.
    """
    generator = np.random.default_rng(0)
    num_images = runs[0].objects.shape[1]
    result = np.empty(draws)
    for draw in range(draws):
        weights = np.bincount(generator.integers(num_images, size=num_images), minlength=num_images)
        places, counts = np.unique(generator.integers(len(runs), size=len(runs)), return_counts=True)
        result[draw] = np.average([runs[place].average_precision(weights) for place in places], weights=counts)
    return result


def bootstrap_interval(differences: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of the draws."""
    low, high = np.quantile(differences, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def bootstrap_p_value(differences: np.ndarray) -> float:
    """Two-sided: twice the share of draws on the side of 0 that has fewer, at least 1 in so many draws + 1."""
    beyond = min(np.count_nonzero(differences <= 0), np.count_nonzero(differences >= 0))
    return min(1.0, 2 * (beyond + 1) / (len(differences) + 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values after Holm's correction for their number, in the same order; compare them with the level itself."""
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(np.argsort(p_values, kind="stable").tolist()):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted
