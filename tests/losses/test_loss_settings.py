"""Settings of the loss modules: given by name or as an object, checked, and shown."""

import numpy as np
import pytest

from losses import ALRPLoss, APLoss, RankSortLoss
from losses.alrp import ALRPSettings
from losses.loss import Loss, LossSettings


def test_settings_are_given_by_name_or_as_an_object():
    assert ALRPLoss(delta=0.5, loc_error="iou").settings == ALRPSettings(delta=0.5, loc_error="iou")
    assert ALRPLoss(ALRPSettings(delta=0.5)).settings.delta == 0.5
    with pytest.raises(TypeError, match=r"give settings or their keys \(delta\), not both"):
        ALRPLoss(ALRPSettings(), delta=1.0)
    with pytest.raises(TypeError, match="no setting is called 'delt'; the nearest is 'delta', of loc_error, box_"):
        ALRPLoss(delt=3)
    with pytest.raises(ValueError, match="balance_every must be at least 1"):
        ALRPLoss(balance_every=0)


@pytest.mark.parametrize(
    ("module", "arguments", "error", "match"),
    [
        (ALRPLoss, {"loc_error": "ciou"}, ValueError, "loc_error must be one of iou, diou, giou, got 'ciou'"),
        (ALRPLoss, {"box_weights": "ranked"}, ValueError, "box_weights must be one of rank, equal"),
        (ALRPLoss, {"name": "focal"}, ValueError, "name must be one of alrp"),
        (APLoss, {"box_loss": "l1"}, ValueError, "box_loss must be one of smooth_l1, iou"),
        (RankSortLoss, {"ranking": "local"}, TypeError, "the group says it"),
        (ALRPLoss, {"self_balance": "no"}, TypeError, "self_balance must be True or False, got 'no'"),
        (ALRPLoss, {"balance_every": 2.5}, TypeError, "balance_every must be an integer or None, got 2.5"),
        (ALRPLoss, {"balance_every": True}, TypeError, "balance_every must be an integer or None, got True"),
        (APLoss, {"delta": "1"}, TypeError, "delta must be a number, got '1'"),
        (APLoss, {"delta": 1e305}, ValueError, "delta must be a positive number below 1e\\+300, got 1e\\+305"),
        (RankSortLoss, {"group": "wrold"}, ValueError, "group must be"),
        (ALRPLoss, {"group": [0, 1]}, ValueError, r'group must be "world", a process group or None, got \[0, 1\]'),
        (APLoss, {"settings": 0.5}, TypeError, "settings must be APSettings"),
        (APLoss, {"settings": ALRPSettings()}, TypeError, "settings must be APSettings"),
    ],
)
def test_settings_that_mean_nothing_are_refused_when_they_are_given(module, arguments, error, match):
    with pytest.raises(error, match=match):
        module(**arguments)


def test_settings_may_be_numbers_of_numpy():
    assert ALRPLoss(delta=np.float32(0.5), balance_every=np.int64(3)).settings == ALRPSettings(
        delta=0.5, balance_every=3
    )
    assert APLoss(delta=1).settings.delta == 1


def test_printing_a_module_shows_its_settings_and_group():
    assert repr(RankSortLoss(delta=0.25)) == "RankSortLoss(loc_error='giou', delta=0.25, self_balance=True)"
    assert repr(APLoss(group="world")) == "APLoss(box_loss='smooth_l1', delta=1.0, group='world')"
    assert "balance_every=3" in repr(ALRPLoss(balance_every=3)).splitlines()[1]


def test_a_loss_that_does_not_say_what_others_ask_of_it_is_refused_where_it_is_defined():
    class NewSettings(LossSettings):
        label = "new"
        update_ratios = (1e-3, 2e-3)

    with pytest.raises(TypeError, match=r"NewSettings must have ranks; see losses\.loss"):

        class New(Loss):
            Settings = NewSettings
