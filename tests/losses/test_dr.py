"""DR Loss: the released code's values and gradients, cases worked by hand, and the keys that come with its name."""

import math

import numpy as np
import pytest
import torch

from detector import build_detector
from detector.families import with_own_defaults
from engine.run.config import load_config, parse_config
from losses import dr_loss
from losses.dr import NEGATIVE_LAMBDA, DRSettings
from losses.matched import Matched
from losses.table import build_loss

CASES = (
    "init",
    "mid",
    "late",
    "separated",
    "inverted",
    "one_positive",
    "no_positive",
    "all_but_one_ignored",
    "other_constants",
)
CONSTANTS = ("positive_lambda", "negative_lambda", "steepness", "weight")


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)], ids=str)
def test_equals_the_released_code(shared, case, dtype, tolerance):
    golden = np.load(shared / "golden/dr_loss" / f"{case}.npz")
    logits = torch.from_numpy(golden["logits"]).to(dtype).flatten().requires_grad_()
    targets = torch.from_numpy(golden["targets"]).flatten()
    assert golden["margin"] == 0.5
    constants = dict(zip(CONSTANTS, _constants(golden), strict=True))
    loss = dr_loss(logits, targets, **constants)
    loss.backward()
    assert loss.dtype == dtype and loss.item() == pytest.approx(golden["loss"].item(), rel=tolerance)
    expected = torch.from_numpy(golden["grad_logits"]).flatten()
    assert (logits.grad - expected).abs().max() <= tolerance * max(1, expected.abs().max())
    assert not logits.grad[targets == -1].any()


def _constants(golden):
    return (float(golden[name]) for name in ("pos_lambda", "neg_lambda", "L", "tau"))


def test_the_defaults_are_the_released_ones(shared):
    golden = np.load(shared / "golden/dr_loss/mid.npz")
    assert list(_constants(golden)) == [1.0, NEGATIVE_LAMBDA, 6.0, 4.0]


def test_case_worked_by_hand():
    # Positives of 1/2 and 3/4 count by e^0 and e^-1/4 beside each other; the only negative has 1/4.
    logits = torch.tensor([0.0, math.log(3), -math.log(3), 9.0], dtype=torch.float64)
    positive = (0.5 + 0.75 * math.exp(-0.25)) / (1 + math.exp(-0.25))
    expected = 4 / 6 * math.log(1 + math.exp(6 * (0.25 - positive + 0.5)))
    assert dr_loss(logits, torch.tensor([1, 1, 0, -1])).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("targets", [[], [-1, -1]])
def test_with_nothing_to_learn_from_it_is_attached_and_moves_nothing(targets):
    logits = torch.zeros(len(targets), requires_grad=True)
    loss = dr_loss(logits, torch.tensor(targets))
    loss.backward()
    assert loss.item() == pytest.approx(4 / 6 * math.log(1 + math.exp(-3))) and not logits.grad.any()


def test_without_negatives_the_positives_still_rise():
    logits = torch.zeros(2, requires_grad=True)
    dr_loss(logits, torch.ones(2)).backward()
    assert (logits.grad < 0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_extreme_logits_and_cold_temperatures_are_finite(dtype):
    logits = torch.tensor([-3e38, 3e38, -3e38, 3e38, 0], dtype=dtype, requires_grad=True)
    targets = torch.tensor([1, 1, 0, 0, 0])
    for constants in ({}, {"positive_lambda": 1e-4, "negative_lambda": 1e-4, "steepness": 1e4}):
        loss = dr_loss(logits, targets, **constants)
        (gradient,) = torch.autograd.grad(loss, logits)
        assert loss.dtype == torch.promote_types(dtype, torch.float32) and loss.isfinite()
        assert gradient.dtype == dtype and gradient.isfinite().all()


@pytest.mark.parametrize("entry", range(3))
def test_a_logit_that_is_not_finite_shows_in_the_loss(entry):
    logits = torch.zeros(3)
    logits[entry] = torch.inf
    assert dr_loss(logits, torch.tensor([1, 0, -1])).isnan()


def test_the_name_brings_the_keys_that_it_was_made_for(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("loss: {name: dr}\nmodel: {backbone: resnet18, score_thresh: 0.1}\n")
    model = load_config(path).model
    assert (model.prior, model.background_iou, model.score_thresh) == (0.5, 0.5, 0.1)
    model = load_config(path, ["model.prior=0.02"]).model
    assert (model.prior, model.background_iou) == (0.02, 0.5)
    model = load_config(path, ["loss.name=focal"]).model
    assert (model.prior, model.background_iou, model.score_thresh) == (0.01, 0.4, 0.1)


def test_stored_keys_win_over_those_that_the_name_brings():
    stored = parse_config({"loss": {"name": "dr"}, "model": {"prior": 0.3}}, "x").to_dict()
    assert parse_config(stored, "x").to_dict() == stored and stored["model"]["prior"] == 0.3


def test_a_group_of_the_wrong_type_is_left_to_validation():
    for model, loss in (({}, 3), (3, {"name": "dr"}), ({"family": []}, {"name": "dr"}), ({}, {"name": []})):
        assert with_own_defaults(model, loss) == (model, loss)


def test_a_detector_with_it_starts_undecided_and_ignores_nothing():
    small = {"backbone": "resnet18", "weights": None, "norm": "group", "frozen_stages": 0, "fpn_channels": 32}
    detector = build_detector({"model": small, "loss": {"name": "dr"}}, 3)
    assert not detector.head.cls_logits.bias.any()
    boxes = torch.tensor([[4.0, 4, 40, 52]])
    target = {"boxes": boxes, "labels": torch.tensor([1]), "crowd": torch.tensor([False])}
    assert (detector.references.match(detector.references.boxes((64, 64)), boxes) >= -1).all()
    losses = detector(torch.rand(2, 3, 64, 64), [target, target])
    losses["loss"].backward()
    assert set(losses) == {"loss", "loss_cls", "loss_loc"}
    assert all(parameter.grad.isfinite().all() for parameter in detector.parameters())


def test_the_settings_of_the_loss_count():
    zeros = torch.zeros(1, 4)
    logits, targets, offsets = torch.tensor([0.0, 1.0]), torch.tensor([1, 0]), torch.full((1, 4), 0.2)

    def parts(**settings):
        matched = Matched(logits, targets, torch.tensor([0]), zeros, zeros, offsets, lambda: zeros)
        return build_loss(DRSettings(**settings)).of_matched(matched)

    assert parts()["loss_cls"] == dr_loss(logits, targets)
    for constants in ({"steepness": 3.0}, {"weight": 2.0}):
        assert parts(**constants)["loss_cls"] == dr_loss(logits, targets, **constants) != dr_loss(logits, targets)
    # an offset of 0.2 is beyond the default beta of 0.11, where the loss is linear, and below 1, where it is quadratic
    assert parts()["loss_loc"].item() == pytest.approx(0.2 - 0.11 / 2)
    assert parts(smooth_l1_beta=1.0)["loss_loc"].item() == pytest.approx(0.2**2 / 2)
