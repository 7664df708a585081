"""detector/config.py: defaults are the paper's, mistakes are refused."""

import pytest
from pydantic import ValidationError

from detector import LossConfig, ModelConfig


def test_defaults_are_the_papers():
    model, loss = ModelConfig(), LossConfig()
    assert (model.backbone, model.norm, model.frozen_stages, model.p7_relu) == (
        "resnet50",
        "frozen_batch",
        2,
        False,
    )
    assert model.anchor_ratios == (0.5, 1.0, 2.0) and model.anchor_octave_scales == (1.0, 2**0.5)
    assert (loss.name, loss.loc_error, loss.delta, loss.ranking) == ("alrp", "giou", 1.0, "global")


@pytest.mark.parametrize(
    ("group", "values"),
    [
        (ModelConfig, {"backbone": "resnet20"}),
        (ModelConfig, {"norm": "layer"}),
        (ModelConfig, {"p6_from": "p4"}),
        (ModelConfig, {"box_convention": "yolo"}),
        (ModelConfig, {"frozen_stages": 6}),
        (ModelConfig, {"frozen_stages": "two"}),
        (ModelConfig, {"anchor_ratios": []}),
        (ModelConfig, {"anchor_ratios": [0.5, -1]}),
        (ModelConfig, {"anchor_octave_scales": 1.0}),
        (ModelConfig, {"score_thresh": 1.5}),
        (ModelConfig, {"prior": 0.0}),
        (ModelConfig, {"weights": 3}),
        (ModelConfig, {"backbones": "resnet18"}),
        (LossConfig, {"delta": 0}),
        (LossConfig, {"delta": "abc"}),
        (LossConfig, {"delta": float("inf")}),
        (LossConfig, {"name": "ce"}),
        (LossConfig, {"gamma": -1}),
        (LossConfig, {"ranking": "batch"}),
    ],
)
def test_mistakes_are_refused(group, values):
    with pytest.raises(ValidationError) as error:
        group(**values)
    assert error.value.errors()[0]["loc"][0] == next(iter(values))


def test_basic_blocks_are_not_deformable():
    with pytest.raises(ValidationError, match="deformable: true needs a backbone of bottleneck blocks"):
        ModelConfig(backbone="resnet18", deformable=True)


def test_groups_do_not_change():
    with pytest.raises(ValidationError):
        LossConfig().delta = 2.0
