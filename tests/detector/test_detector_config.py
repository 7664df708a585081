"""detector/config.py: defaults are the paper's, mistakes are refused."""

from dataclasses import FrozenInstanceError

import pytest
from pydantic import ValidationError

from detector.config import loss_settings
from detector.families import model_settings


def test_defaults_are_the_papers():
    model, loss = model_settings({}), loss_settings({})
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
        (model_settings, {"backbone": "resnet20"}),
        (model_settings, {"norm": "layer"}),
        (model_settings, {"p6_from": "p4"}),
        (model_settings, {"box_convention": "yolo"}),
        (model_settings, {"frozen_stages": 6}),
        (model_settings, {"frozen_stages": "two"}),
        (model_settings, {"anchor_ratios": []}),
        (model_settings, {"anchor_ratios": [0.5, -1]}),
        (model_settings, {"anchor_octave_scales": 1.0}),
        (model_settings, {"score_thresh": 1.5}),
        (model_settings, {"prior": 0.0}),
        (model_settings, {"weights": 3}),
        (model_settings, {"backbones": "resnet18"}),
        (loss_settings, {"delta": 0}),
        (loss_settings, {"delta": "abc"}),
        (loss_settings, {"delta": float("inf")}),
        (loss_settings, {"gamma": -1, "name": "focal"}),
        (loss_settings, {"alpha": 1.5, "name": "focal"}),
        (loss_settings, {"balance_every": 0}),
        (loss_settings, {"alpha": 0.5}),
        (loss_settings, {"ranking": "batch"}),
    ],
)
def test_mistakes_are_refused(group, values):
    with pytest.raises(ValidationError) as error:
        group(values)
    problem = error.value.errors()[0]
    assert next(iter(values)) in (*problem["loc"], problem["msg"].removeprefix("Value error, ").split()[0])


def test_basic_blocks_are_not_deformable():
    with pytest.raises(ValidationError, match="deformable: true needs a backbone of bottleneck blocks"):
        model_settings({"backbone": "resnet18", "deformable": True})


def test_groups_do_not_change():
    with pytest.raises(FrozenInstanceError):
        loss_settings({}).delta = 2.0


def test_a_loss_has_its_own_defaults_and_no_other_is_known():
    assert (loss_settings({"name": "rs"}).delta, loss_settings({"name": "ap"}).delta) == (0.5, 1.0)
    for settings, name in ((loss_settings, {"name": "hinge"}), (model_settings, {"family": "yolo"})):
        with pytest.raises(ValidationError) as error:
            settings(name)
        assert error.value.errors()[0]["type"] == "union_tag_invalid"
