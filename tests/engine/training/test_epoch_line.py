"""The console's text beside the bar and at the end of an epoch."""

import math

from engine.run.config import parse_config
from engine.run.schedule import build_schedule
from engine.training.epoch_line import EpochLine

SCHEDULE = build_schedule(parse_config({"data": {"batch_size": 4}, "schedule": {"epochs": 3}}, "test"), 8)


def test_the_bar_shows_the_step_and_the_newest_positives():
    line = EpochLine(SCHEDULE, 4)
    stats = {"loss": 1.5, "loss_cls": 0.5, "loss_loc": 0.02, "grad_norm": 3.0, "self_balance": 50.0, "lr": 0.01}
    assert line.add(stats, 1) == "loss 1.5 (cls 0.5, loc 0.02, weight 50), lr 0.01, epoch 1/3"
    assert line.add(stats | {"num_positives": 12.0}, 2) == (
        "loss 1.5 (cls 0.5, loc 0.02, weight 50), lr 0.01, 12 positives, epoch 1/3"
    )
    line.start()  # another epoch
    assert line.add({"loss": math.nan, "loss_cls": math.nan, "lr": 0.02}, 3) == (
        "loss nan (cls nan), lr 0.02, 12 positives, epoch 2/3"
    )


def test_the_line_of_an_epoch_has_means_of_what_is_finite_and_the_last_rate():
    line = EpochLine(SCHEDULE, 4)
    line.add({"loss": 1.0, "loss_cls": 1.0, "lr": 0.01, "num_positives": 10.0}, 1)
    line.add({"loss": 2.0, "loss_cls": 4.0, "lr": 0.02, "num_positives": 20.0}, 2)
    line.add({"loss": math.inf, "loss_cls": math.nan, "lr": 0.03}, 3)
    assert line.text(3).startswith("epoch 2/3, step 3: loss 1.5 (cls 2.5), lr 0.03, 15 positives, ")
    line.start()
    line.add({"loss": 7.0}, 4)
    assert line.text(4).startswith("epoch 2/3, step 4: loss 7, ")


def test_an_epoch_without_a_finite_number_has_a_line_all_the_same():
    line = EpochLine(SCHEDULE, 4)
    line.add({"loss": math.nan}, 1)
    assert line.text(1).startswith("epoch 1/3, step 1: ")
