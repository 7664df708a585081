"""Intervals, tests and corrections against tables and plain sums."""

import numpy as np
import pytest

from engine.tools.ablation.kept_matches import KeptMatches
from engine.tools.ablation.statistics import (
    bootstrap_interval,
    bootstrap_means,
    bootstrap_p_value,
    holm,
    paired_difference,
    paired_p_value,
)


def test_intervals_are_students():
    assert paired_difference([1.0], [0.5]) == (0.5, None)
    mean, half_width = paired_difference([1.0, 3.0], [0.0, 0.0])
    assert (mean, half_width) == pytest.approx((2.0, 12.706 * np.sqrt(2) / np.sqrt(2)), rel=1e-3)
    values = np.arange(21.0)  # 20 degrees of freedom: t = 2.086
    assert paired_difference(values, 0 * values)[1] == pytest.approx(2.086 * values.std(ddof=1) / np.sqrt(21), rel=1e-3)


@pytest.mark.parametrize(
    ("freedom", "quantile", "p_value"),  # of tables of Student's distribution, two-sided
    [
        (1, 12.706, 0.05),
        (1, 1.0, 0.5),
        (2, 4.303, 0.05),
        (3, 5.841, 0.01),
        (4, 2.132, 0.1),
        (9, 2.262, 0.05),
        (30, 2.750, 0.01),
    ],
)
def test_p_values_are_students(freedom, quantile, p_value):
    spread = np.linspace(-1, 1, freedom + 1)
    differences = spread + quantile * spread.std(ddof=1) / np.sqrt(freedom + 1)
    assert paired_p_value(differences, 0 * differences) == pytest.approx(p_value, rel=2e-3)
    assert paired_p_value(-differences, 0 * differences) == paired_p_value(differences, 0 * differences)


def test_pairs_that_all_differ_alike_leave_no_doubt():
    assert paired_p_value([0.5, 0.5], [0.25, 0.25]) == 0.0 and paired_p_value([0.5, 0.5], [0.5, 0.5]) == 1.0


def test_holms_steps():
    # sorted .01 .02 .03 .04: 4 × .01, 3 × .02, 2 × .03, 1 × .04, each at least the one before
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]


def run_with(found: np.ndarray) -> KeptMatches:
    """One object and one detection an image, all of one class and of falling score; `found` tells the true ones."""
    places = np.arange(len(found), dtype=np.uint32)
    true = found.astype(np.uint16)
    return KeptMatches(
        places, true, 1 - true, np.array([0, len(found)]), np.ones((1, len(found)), np.uint32), np.array(1)
    )


def test_a_bootstrap_covers_what_images_and_seeds_vary():
    generator = np.random.default_rng(1)
    better, worse = ([run_with(generator.random(60) < share) for _ in range(6)] for share in (0.9, 0.5))
    differences = bootstrap_means(better, draws=400) - bootstrap_means(worse, draws=400)
    low, high = bootstrap_interval(differences)
    everywhere = np.ones(60, dtype=int)
    means = [np.mean([run.average_precision(everywhere) for run in runs]) for runs in (better, worse)]
    mean = means[0] - means[1]
    assert 0 < low < mean < high and bootstrap_p_value(differences) == pytest.approx(2 / 401)
    assert bootstrap_p_value(np.zeros(50)) == 1.0


def test_runs_of_a_pair_are_drawn_together():
    generator = np.random.default_rng(2)
    own, other = ([run_with(generator.random(30) < share) for _ in range(4)] for share in (0.8, 0.6))
    found = bootstrap_means(own, draws=50) - bootstrap_means(other, draws=50)
    draw = np.random.default_rng(0)  # image by image and pair by pair, each counted as often as it was drawn
    for value in found:
        images, pairs = draw.integers(30, size=30), draw.integers(4, size=4)
        weights = np.array([np.sum(images == image) for image in range(30)])
        pairs_differ = [own[pair].average_precision(weights) - other[pair].average_precision(weights) for pair in pairs]
        assert value == pytest.approx(np.mean(pairs_differ), abs=1e-12)
