"""Numbers that two packages keep, each for itself because neither imports the other, are the same."""

import torch
from pycocotools.cocoeval import Params

from data.images import EXACT_MEAN_COLOUR, MEAN_COLOUR, blank_images
from data.loader import SIZE_DIVISOR
from detector import contract
from engine.metrics import matching
from losses.alrp import TAU


def test_losses_and_metrics_call_the_same_detections_true():
    assert TAU == matching.TAU == 0.5


def test_loaders_pad_to_what_detectors_take_and_with_what_they_subtract():
    assert SIZE_DIVISOR == contract.SIZE_DIVISOR
    assert MEAN_COLOUR == (124, 116, 104)
    torch.testing.assert_close(torch.tensor(EXACT_MEAN_COLOUR) / 255, torch.tensor(contract.IMAGENET_MEAN))
    padding = blank_images(1, 1, 1)[0, :, 0, 0] / 255 - torch.tensor(contract.IMAGENET_MEAN)
    assert padding.abs().max() < 0.5 / 255


def test_object_sizes_are_those_of_pycocotools():
    params = Params("bbox")
    published = dict(zip(params.areaRngLbl, params.areaRng, strict=True))
    assert {label: [*limits] for label, limits in matching.AREAS.items()} == published
