"""Every cause is named when its numbers are there, and none for the numbers of healthy runs."""

import pytest
import torch

from detector.monitor import IOU_EDGES, LOGIT_EDGES, RANK_EDGES
from engine.diagnosis.anchor_fit import AnchorFit
from engine.diagnosis.checks import (
    EVALUATION_CHECKS,
    STEP_CHECKS,
    SYMPTOM_CHECKS,
    WINDOW,
    check_anchors,
    check_schedule,
)
from engine.diagnosis.step_record import quantiles, summarise
from engine.run.config import parse_config
from engine.run.schedule import build_schedule

# of a healthy run on shapes at step 300 and later
HEALTHY = {
    "loss_loc": 0.05,
    "grad_norm": 5.0,
    "lr": 0.04,
    "update_ratio": 7e-4,
    "skipped_steps": 0,
    "self_balance": 26.0,
    "num_positives": 140,
    "num_objects": 12,
    "num_negatives": 51000,
    "relevant_negatives": 0.6,
    "precision": 0.3,
    "rank": [20, 400, 5000],
    "score_positive": [0.01, 0.07, 0.3],
    "above_threshold": 0.5,
}


def config(*overrides):
    plain = {"data": {"batch_size": 4}, "optimizer": {"lr": 0.04, "base_batch_size": 4, "clip_grad_norm": 10.0}}
    return parse_config(plain, "test", ["schedule.warmup_steps=100", "schedule.epochs=2", *overrides])


def findings(records, *overrides, images=1600) -> dict[str, str]:
    settings = config(*overrides)
    schedule = build_schedule(settings, images)
    checks = (*STEP_CHECKS, *EVALUATION_CHECKS, *SYMPTOM_CHECKS)
    found = [check(records, settings, schedule) for check in checks]
    return {finding.cause: finding.message for finding in found if finding is not None}


def run(steps=500, **numbers) -> list[dict]:
    """Records of every tenth step; a list of numbers is spread over the run."""
    records = []
    for index, step in enumerate(range(10, steps + 1, 10)):
        part = {name: v[index * len(v) // (steps // 10)] if isinstance(v, tuple) else v for name, v in numbers.items()}
        records.append({"step": step, **HEALTHY, **part})
    return records


@pytest.mark.parametrize("loss", ["alrp", "rs", "ap", "focal"])
def test_a_healthy_run_gets_no_finding(loss):
    assert findings(run(), f"loss.name={loss}") == {}
    # at the highest healthy values that were measured
    ratio = 1.0e-3 if loss == "focal" else 1.7e-3
    assert findings(run(update_ratio=ratio, self_balance=(50.0, 67.0, 18.0)), f"loss.name={loss}") == {}


@pytest.mark.parametrize(("loss", "ratio"), [("alrp", 3.9e-3), ("focal", 1.8e-3)])
def test_a_high_rate_is_named_with_a_better_one(loss, ratio):
    (cause,) = found = findings(run(update_ratio=ratio), f"loss.name={loss}", "optimizer.lr=0.8")
    assert cause == "learning_rate"
    assert f"{ratio:.1e}" in found[cause] and "optimizer.lr to about 0.0" in found[cause] and "now 0.8" in found[cause]


def test_a_low_rate_is_named_if_ranks_are_poor_and_the_rate_has_not_decayed():
    slow = {"update_ratio": 3.9e-5, "rank": [2000, 10000, 30000]}
    (cause,) = found = findings(run(200, **slow))
    assert cause == "learning_rate"
    assert "0.04 for batches of 4 is too low; set optimizer.lr to about 1 " in found[cause]
    assert findings(run(190, **slow)) == {}
    assert findings(run(200, **slow | {"rank": [20, 400, 5000]})) == {}  # as where weights are pretrained
    assert findings(run(200, lr=0.004, **slow)) == {}


def test_a_single_long_update_is_no_finding():
    records = run()
    records[-1]["update_ratio"] = records[-3]["update_ratio"] = 0.1
    assert findings(records) == {}


def test_the_scaling_rule_is_named_where_it_is_off():
    found = findings(run(update_ratio=5e-3), "optimizer.scale_lr=false", "optimizer.base_batch_size=32")
    assert "optimizer.scale_lr=false, would make it 0.005" in found["learning_rate"]


def test_skipped_steps_and_useless_gradients_point_at_the_rate():
    assert "7 of 500 steps were skipped" in findings(run(skipped_steps=7))["learning_rate"]
    lost = run(grad_norm=2000.0, rank=[20000, 25000, 40000])
    assert "gradient norm is 2e+03" in findings(lost)["learning_rate"]


def test_numbers_of_steps_that_were_not_finite_are_passed_over():
    bad = {"step": 10, "loss": None, "grad_norm": None, "skipped_steps": 1, "update_ratio": None}
    assert findings([bad]) == {}
    assert findings([bad] * WINDOW) == {}


def test_ranks_as_by_chance_are_a_symptom_only_after_the_warm_up():
    lost = {"rank": [10000, 25000, 40000], "precision": 0.003}
    assert findings(run(190, **lost)) == {}
    assert "ranks 25000 of 51140" in findings(run(200, **lost))["not_ranking"]


def test_no_positives():
    empty = {"num_positives": 0, "precision": None, "rank": None, "score_positive": None, "above_threshold": None}
    assert "model.anchor_base_scale (now 4)" in findings(run(**empty))["no_positives"]
    assert "scripts/check_dataset.py" in findings(run(**empty, num_objects=0))["no_positives"]


def test_a_weight_that_never_moves_or_runs_away():
    stuck = findings(run(500, self_balance=50.0, loss_loc=0.0))
    assert "50 after 1 updates" in stuck["balance_stuck"]
    assert findings(run(390, self_balance=50.0, loss_loc=0.0)) == {}
    # of a measured run whose positives all stayed at the same score
    assert "50, 778, 1.47e+03" in findings(run(self_balance=(50.0, 778.0, 1467.0)))["balance_runaway"]
    without_positives = findings(run(self_balance=(50.0, 778.0, 1467.0), rank=None))["balance_runaway"]
    assert "median rank unknown" in without_positives
    assert findings(run(self_balance=(50.0, 146.0, 61.0))) == {}
    assert findings(run(self_balance=(778.0, 1467.0, 1500.0)), "loss.name=ap") == {}


def test_a_run_that_ends_within_its_first_epoch():
    for overrides, images, stuck in ((["schedule.max_steps=400"], 1600, True), ([], 1600, False)):
        settings = config(*overrides)
        finding = check_schedule(settings, build_schedule(settings, images))
        assert (finding is not None) == stuck
    assert (
        "ends after 400 steps, and self-balancing first sets the weight of the localisation part after 400"
        in check_schedule(
            config("schedule.epochs=1", "schedule.milestones=[]"), build_schedule(config("schedule.epochs=1"), 1600)
        ).message
    )
    for override in ("loss.self_balance=false", "loss.name=ap"):
        settings = config(override, "schedule.epochs=1")
        assert check_schedule(settings, build_schedule(settings, 1600)) is None


def test_nothing_to_rank_is_of_ranking_losses():
    over = run(relevant_negatives=0)
    assert "data.augmentation" in findings(over)["nothing_to_rank"]
    assert findings(over, "loss.name=focal") == {}


def test_scores_below_the_threshold_where_ranks_are_good():
    assert "below_threshold" in findings(run(above_threshold=0.12))
    low = {"above_threshold": 0.0, "score_positive": [0.001, 0.01, 0.02]}
    assert "model.score_thresh to about 0.001" in findings(run(**low))["below_threshold"]
    assert findings(run(**low, precision=0.05)) == {}


def test_anchors_are_judged_by_all_and_by_group():
    def check(missed, best=2.0):
        return check_anchors(AnchorFit(1000, missed), 16.0, lambda: best)

    assert check({"all": 0.21, "small": 0.59}) is None  # the paper's anchors on COCO
    assert check({}) is None
    assert check({"all": 0.6}).cause == "anchors"
    message = check({"all": 0.1, "small": 0.2, "class 'platelet'": 0.96}).message
    assert "10% of 1000 objects (96% of class 'platelet')" in message
    assert "anchor_base_scale to about 2 (now 16)" in message
    many = check({"all": 0.9} | {f"class '{index}'": 0.9 + index / 100 for index in range(5)}).message
    assert "(94% of class '4', 93% of class '3', 92% of class '2', and 2 more)" in many
    assert "no other model.anchor_base_scale" in check({"all": 0.6}, best=16.0).message


def test_every_message_is_one_line_with_a_remedy():
    bad = [
        findings(run(update_ratio=1.0)),
        findings(run(rank=[1, 3e4, 4e4])),
        findings(run(num_positives=0)),
        findings(run(self_balance=(50.0, 778.0, 1467.0))),
        findings(run(relevant_negatives=0)),
    ]
    for found in bad:
        assert found
        for message in found.values():
            assert "\n" not in message and ";" in message


def test_quantiles_of_a_histogram():
    edges = torch.tensor([0.0, 1.0, 2.0, 4.0])
    assert quantiles(torch.tensor([0, 0, 0]), edges, (0.5,)) is None
    assert quantiles(torch.tensor([2, 0, 2]), edges, (0.25, 0.5, 0.75, 1.0)) == [0.5, 1.0, 3.0, 4.0]


def test_a_record_is_short_and_knows_what_is_missing():
    empty = {
        **dict.fromkeys(("num_positives", "num_negatives", "num_relevant_negatives", "num_objects"), torch.tensor(0.0)),
        **dict.fromkeys(("num_objects_reached", "sum_reference_iou", "sum_iou", "sum_precision"), torch.tensor(0.0)),
        "positives_per_level": torch.zeros(5),
        "hist_rank": torch.zeros(len(RANK_EDGES) - 1),
        "hist_logit_positive": torch.zeros(len(LOGIT_EDGES) - 1),
        "hist_logit_negative": torch.zeros(len(LOGIT_EDGES) - 1),
        "hist_iou": torch.zeros(len(IOU_EDGES) - 1),
    }
    record = summarise(empty, {"loss": float("nan"), "grad_norm": 0.123456}, 0.05)
    assert (record["loss"], record["grad_norm"], record["num_objects"]) == (None, 0.1235, 0)
    assert [record[name] for name in ("precision", "rank", "matched_iou", "above_threshold")] == [None] * 4
    assert summarise({}, {"loss": 1.0}, 0.05) == {"loss": 1}
    full = empty | {"num_positives": torch.tensor(2.0), "sum_precision": torch.tensor(1.0)}
    full["hist_logit_positive"] = torch.zeros(len(LOGIT_EDGES) - 1)
    full["hist_logit_positive"][64] = full["hist_logit_positive"][0] = 1  # a score of ½, and one near 0
    record = summarise(full, {}, 0.05)
    assert (record["precision"], record["above_threshold"]) == (0.5, 0.5)
    assert record["score_positive"][2] == pytest.approx(0.55, abs=0.01)


def test_a_detector_without_detailed_statistics_is_only_asked_what_it_can_tell():
    numbers = {"loss": 0.1, "num_positives": 0, "num_relevant_negatives": 90, "grad_norm": 5.0, "lr": 0.04}
    record = summarise({"num_positives": torch.tensor(0)}, numbers | {"update_ratio": 7e-4, "skipped_steps": 0}, 0.05)
    records = [record | {"step": 10 * step, "epoch": step} for step in range(1, 3 * WINDOW)]
    checks = STEP_CHECKS + EVALUATION_CHECKS + SYMPTOM_CHECKS
    assert [check(records, config(), build_schedule(config(), 400)) for check in checks] == [None] * len(checks)
