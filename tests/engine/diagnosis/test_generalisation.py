"""Overfitting, too few images and too little training, told apart by AP on both kinds of images."""

import pytest

from engine.diagnosis.generalisation import check_generalisation, verdict_of
from engine.run.config import parse_config

SCRATCH = parse_config({"model": {"weights": None}}, "test")


@pytest.mark.parametrize(
    ("val", "train", "images", "cause"),
    [
        (0.059, 0.446, 164, "too_few_images"),
        (0.25, 0.9, 5000, "overfitting"),
        (0.09, 0.12, 5000, "undertrained"),
        (0.523, 0.649, 205, None),  # blood cells after 25 epochs
        (0.534, 0.697, 205, None),  # with FreeAnchor
        (0.496, 0.775, 205, "too_few_images"),  # after 40 epochs, mirrored left to right alone
        (0.02, 0.11, 164, "undertrained"),  # too near to each other to say more
        (0.39, 0.45, 118287, None),
        (-1.0, 0.5, 100, None),
        (0.1, -1.0, 100, None),
        (0.1, None, 100, None),
    ],
)
def test_causes(val, train, images, cause):
    finding = check_generalisation(val, train, images, SCRATCH, finished=True)
    assert (finding and finding.cause) == cause
    if finding is not None:
        assert f"{val:.3f}" in finding.message and f"{train:.3f}" in finding.message


def test_a_run_that_has_just_begun_is_not_undertrained_but_may_overfit():
    assert check_generalisation(0.01, 0.02, 5000, SCRATCH, finished=False) is None
    assert check_generalisation(0.1, 0.5, 5000, SCRATCH, finished=False).cause == "overfitting"


def test_the_remedy_is_one_that_is_left():
    scratch = check_generalisation(0.1, 0.5, 50, SCRATCH, finished=True).message
    assert "starts from scratch" in scratch and "model.init_from" in scratch and "model.weights" in scratch
    tuned = parse_config({"model": {"init_from": "a.pt"}}, "test")
    assert "scratch" not in check_generalisation(0.1, 0.5, 50, tuned, finished=True).message
    for augmentation, advised in (("flip", True), ("ssd", False), ("crop", False)):
        config = parse_config({"data": {"augmentation": augmentation}}, "test")
        message = check_generalisation(0.1, 0.5, 5000, config, finished=True).message
        assert ("data.augmentation=ssd" in message) == advised


def test_the_verdict_of_a_checkpoint():
    state = {"evaluated_ap": {"AP": 0.059, "train_AP": 0.446}, "training_set": {"images": 164, "digest": "0"}}
    assert verdict_of(state, SCRATCH).startswith("Too few images: AP is 0.446 on training images and 0.059 on")
    healthy = verdict_of(state | {"evaluated_ap": {"AP": 0.523, "train_AP": 0.649}}, SCRATCH)
    assert "no overfitting" in healthy and "0.649" in healthy
    for unknown in ({}, {"AP": 0.5}, {"AP": -1.0, "train_AP": 0.5}):
        assert verdict_of(state | {"evaluated_ap": unknown}, SCRATCH) == ""
    assert verdict_of({"evaluated_ap": {"AP": 0.1, "train_AP": 0.5}}, SCRATCH) == ""  # of an older version
