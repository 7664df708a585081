"""The known causes of a run that does not converge, as they show in the records of its steps.

Pure functions of plain numbers. Every check looks at the records so far, oldest first, and returns a finding or None.
How the limits were measured is in docs/diagnose.md.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from detector.monitor import REACHED_IOU
from engine.diagnosis.anchor_fit import AnchorFit
from engine.diagnosis.step_record import Record, median_of
from engine.run.config import Config
from engine.run.schedule import Schedule

WINDOW = 10  # records that a judgement takes the median of
# Of a group's objects, the share that no anchor fits from which on it is named. Paper's anchors on COCO: 0.21 of all
# and 0.59 of the small ones; anchors 8 times too large for the quickstart: 0.94 of all.
MISSED_OF_ALL, MISSED_OF_GROUP = 0.5, 0.9
NAMED_GROUPS = 3
# lr * |clipped gradient| / |weights| below which a rate is too low, if positives rank little better than by chance as
# well: 2.5e-4 in the healthy run with the shortest updates, 4e-5 at an 80th of the shipped rate, where the median rank
# was 0.17 of all then. From where on a rate is too high, its loss says (`LossSettings.update_ratios`).
LOW_UPDATE_RATIO, SLOW_RANK = 1e-4, 0.1
CLIPPED_FACTOR = 5  # gradient norm / clip_grad_norm from which a step is mostly clipped away
MANY_SKIPPED = 3  # steps that were not finite; one or two happen in healthy mixed-precision runs
CHANCE_RANK = 0.25  # median rank / all ranks: 0.5 by chance; in healthy runs at most 0.05 when it is looked at
CHANCE_STEPS = 100  # after the warm-up, before which nobody can tell
RUNAWAY_WEIGHT = 100.0  # twice the initial weight; healthy runs went 50, 146, 61 at worst
GOOD_PRECISION = 0.2  # of positives that rank well enough to be detected, were their scores high enough
FEW_ABOVE = 0.25  # share of positives above model.score_thresh below which an evaluation drops most of what ranks well


class Finding(NamedTuple):
    """A known cause that was seen: its name, and one line with numbers, reason and remedy."""

    cause: str
    message: str


def check_anchors(fit: AnchorFit, base_scale: float, best_scale: Callable[[], float]) -> Finding | None:
    """Before the first step.

    Args:
        base_scale: model.anchor_base_scale. best_scale: finds the one to recommend; called if there is a finding.
    """
    missed = {name: share for name, share in fit.missed.items() if name != "all" and share >= MISSED_OF_GROUP}
    of_all = fit.missed.get("all", 0.0)
    if not missed and of_all < MISSED_OF_ALL:
        return None
    worst = sorted(missed, key=lambda name: -missed[name])
    groups = ", ".join(f"{missed[name]:.0%} of {name}" for name in worst[:NAMED_GROUPS])
    groups += f", and {len(worst) - NAMED_GROUPS} more" if len(worst) > NAMED_GROUPS else ""
    better = best_scale()
    remedy = (
        f"set model.anchor_base_scale to about {better:.2g} (now {base_scale:g})"
        if not math.isclose(better, base_scale)
        else "no other model.anchor_base_scale fits better: raise data.image_size, or adapt model.anchor_ratios"
    )
    return Finding(
        "anchors",
        f"{of_all:.0%} of {fit.objects} objects{f' ({groups})' if groups else ''} have no anchor with an IoU of "
        f"{REACHED_IOU} or more, so they are learnt from anchors that hardly touch them, or from none; {remedy}",
    )


def check_schedule(config: Config, schedule: Schedule) -> Finding | None:
    """Before the first step: whether self-balancing will ever move its weight."""
    stop = min(schedule.total_steps, config.schedule.max_steps or schedule.total_steps)
    period = config.loss.balance_period(schedule.steps_per_epoch)
    if period is None or stop > period:
        return None
    return Finding(
        "balance_stuck",
        f"the run ends after {stop} steps, and self-balancing first sets the weight of the localisation part after "
        f"{period}, so it stays at 50; set loss.box_weights=equal, which balances in every "
        "step, or loss.balance_every to some 50 steps, or train for more epochs (schedule.epochs, schedule.max_steps)",
    )


def check_learning_rate(records: Sequence[Record], config: Config, schedule: Schedule) -> Finding | None:
    """Updates too long or short, steps that are not finite, or a gradient of which clipping leaves next to nothing."""
    now, window = records[-1], records[-WINDOW:]
    if now["skipped_steps"] >= MANY_SKIPPED:
        seen = f"{now['skipped_steps']:g} of {now['step']} steps were skipped, their loss or gradient being not finite"
        return _rate_finding(seen, config, schedule, schedule.lr / 4)
    ratio, norm = median_of(window, "update_ratio"), median_of(window, "grad_norm")
    if len(window) < WINDOW or ratio is None or norm is None:
        return None
    usual, high = config.loss.update_ratios
    if ratio > high:
        seen = (
            f"a step moves the weights by {ratio:.1e} of their length, where {usual:.0e} is usual: they jump about "
            f"more than they learn (precision of the positives {_short(median_of(window, 'precision'))})"
        )
        # with normalised layers the ratio grows with the square root of the rate
        return _rate_finding(seen, config, schedule, schedule.lr * (usual / ratio) ** 2)
    settled = now["step"] >= schedule.warmup_steps + CHANCE_STEPS and window[0]["lr"] > schedule.lr / 2
    if settled and ratio < LOW_UPDATE_RATIO and _rank_share(window) > SLOW_RANK:
        seen = (
            f"a step moves the weights by {ratio:.1e} of their length, where {usual:.0e} is usual, and after step "
            f"{now['step']} the median positive still ranks {median_of(window, 'rank'):.0f} of {_ranks(window):.0f}"
        )
        return _rate_finding(seen, config, schedule, schedule.lr * usual / ratio)
    clip = config.optimizer.clip_grad_norm
    clipped = [record["grad_norm"] for record in window if record.get("grad_norm") is not None]
    if clip is not None and min(clipped) > CLIPPED_FACTOR * clip and _rank_share(window) > CHANCE_RANK:
        seen = f"the gradient norm is {norm:.3g} where optimizer.clip_grad_norm allows {clip:g}, and nothing is learnt"
        return _rate_finding(seen, config, schedule, schedule.lr * clip / norm)
    return None


def check_ranking(records: Sequence[Record], config: Config, schedule: Schedule) -> Finding | None:
    """Whether positives rank as by chance although the warm-up is over."""
    window = records[-WINDOW:]
    settled = len(window) == WINDOW and window[-1]["step"] >= schedule.warmup_steps + CHANCE_STEPS
    if not settled or _rank_share(window) <= CHANCE_RANK:
        return None
    remedy = "look at train_batch.png whether boxes and labels are right"
    if (
        config.model.weights is None
        and config.model.init_from is None
        and getattr(config.model, "head_norm", "") is None
    ):
        remedy += "; heads that start from scratch learn with model.head_norm=group"
    return Finding(
        "not_ranking",
        f"after step {window[-1]['step']} the median positive ranks {median_of(window, 'rank'):.0f} of "
        f"{_ranks(window):.0f}, near the middle as by chance (precision {_short(median_of(window, 'precision'))}): the "
        "classification learns nothing; " + remedy,
    )


def check_positives(records: Sequence[Record], config: Config, schedule: Schedule) -> Finding | None:
    """Batches without positives."""
    window = records[-WINDOW:]
    positives, objects = median_of(window, "num_positives"), median_of(window, "num_objects")
    if len(window) < WINDOW or positives != 0 or objects is None:  # a detector may not count its objects
        return None
    if median_of(window, "num_positives_rpn"):
        seen = f"the median batch has {objects:g} objects and no proposal that overlaps one by half"
        remedy = f"lower optimizer.lr (now {config.optimizer.lr:g}), with which the first head learns no boxes"
        return Finding("no_positives", f"{seen}; {remedy}")
    base_scale = getattr(config.model, "anchor_base_scale", None)  # of the families with anchors
    remedy = (
        f"set model.anchor_base_scale (now {base_scale:g}) to the size of the objects"
        if objects and base_scale is not None
        else "look at the annotations with scripts/check_dataset.py, and at train_batch.png"
    )
    seen = f"the median batch has {objects:g} objects and no positive anchor, so that there is nothing to learn"
    return Finding("no_positives", f"{seen}; {remedy}")


def check_balance(records: Sequence[Record], config: Config, schedule: Schedule) -> Finding | None:
    """Whether self-balancing has not moved its weight where it should have, or raises it epoch after epoch."""
    heads = [name.removeprefix("self_balance") for name in records[-1] if name.startswith("self_balance")]
    findings = (_check_balance_of(head, records, config, schedule) for head in heads)
    return next((finding for finding in findings if finding is not None), None)


def _check_balance_of(head: str, records: Sequence[Record], config: Config, schedule: Schedule) -> Finding | None:
    """The same of one head, given by the end of the names of its numbers: "" for the only one, or such as "_roi"."""
    now, name = records[-1], f"self_balance{head}"
    which = "the weight of the localisation part" + head.replace("_", " of ")
    weights = [record[name] for record in records if record.get(name) is not None]
    period = config.loss.balance_period(schedule.steps_per_epoch)
    if not weights or period is None:
        return None
    distinct = [weight for weight, before in zip(weights, [None, *weights], strict=False) if weight != before]
    updates = now["step"] // period
    no_boxes = len(records) >= WINDOW and not any(record.get(f"loss_loc{head}") for record in records[-WINDOW:])
    if len(distinct) == 1 and updates > 0 and no_boxes:
        return Finding(
            "balance_stuck",
            f"{which} is {distinct[0]:g} after {updates} updates: self-balancing leaves it "
            "where the localisation part is 0, as it is without positives; see train/num_positives and train_batch.png",
        )
    rank = median_of(records[-WINDOW:], "rank")  # None where there were no positives
    if len(distinct) > 2 and distinct[-3] < distinct[-2] < distinct[-1] and distinct[-1] > RUNAWAY_WEIGHT:
        return Finding(
            "balance_runaway",
            f"{which} went {', '.join(f'{weight:.3g}' for weight in distinct[-3:])}: the "
            "localisation part is divided by the ranks, so it vanishes, and its weight grows, while the positives "
            f"rank low (median rank {'unknown' if rank is None else f'{rank:.0f}'}); mend the ranking first: lower "
            f"optimizer.lr (now {config.optimizer.lr:g}), or set loss.self_balance=false",
        )
    return None


def check_relevant_negatives(records: Sequence[Record], config: Config, schedule: Schedule) -> Finding | None:
    """Whether all negatives lie below all positives, so that a ranking loss has no gradient for the scores."""
    window = [record for record in records[-WINDOW:] if record.get("num_positives") and "relevant_negatives" in record]
    if len(window) < WINDOW or not config.loss.ranks or any(record["relevant_negatives"] for record in window):
        return None
    return Finding(
        "nothing_to_rank",
        f"in {len(window)} logged steps no negative scored within loss.delta={config.loss.step_half_width:g} of any "
        "positive or above it: the classification part has no gradient left; the run has learnt its training data by "
        "heart: add images or augmentation (data.augmentation), or stop earlier (schedule.epochs)",
    )


def check_scores(records: Sequence[Record], config: Config, schedule: Schedule) -> Finding | None:
    """At an evaluation: whether its score threshold drops positives that rank well."""
    window = records[-WINDOW:]
    above, precision, score = (median_of(window, name) for name in ("above_threshold", "precision", "score_positive"))
    if len(window) < WINDOW or above is None or precision is None or score is None:
        return None
    if above >= FEW_ABOVE or precision < GOOD_PRECISION:
        return None
    threshold = config.model.score_thresh
    return Finding(
        "below_threshold",
        f"{above:.0%} of the positives score above model.score_thresh={threshold:g} (median {score:.2g}), so the "
        "evaluation drops the others' detections and AP is too low; ranking losses order scores and do not fix their "
        f"height: set model.score_thresh to about {score / 10:.1g}, or 0, and train on if ranks still improve",
    )


STEP_CHECKS = (check_learning_rate, check_positives, check_balance, check_relevant_negatives)
EVALUATION_CHECKS = (check_scores,)
SYMPTOM_CHECKS = (check_ranking,)  # of interest where no cause has been seen


def _rate_finding(seen: str, config: Config, schedule: Schedule, better: float) -> Finding:
    """A finding about the learning rate; `better` is the one to recommend, after scaling as schedule.lr is."""
    optimizer, batch_size = config.optimizer, config.data.batch_size
    fault = "low" if better > schedule.lr else "high"
    rate = f"the learning rate {schedule.lr:g} for batches of {batch_size} is too {fault}"
    if not optimizer.scale_lr and batch_size != optimizer.base_batch_size:
        scaled = optimizer.lr * batch_size / optimizer.base_batch_size
        rate += f" (linear scaling, turned off by optimizer.scale_lr=false, would make it {scaled:g})"
    better *= optimizer.lr / schedule.lr
    return Finding("learning_rate", f"{seen}: {rate}; set optimizer.lr to about {better:.1g} (now {optimizer.lr:g})")


def _rank_share(window: Sequence[Record]) -> float:
    """Median rank of the positives among all ranks; 0 without positives."""
    rank = median_of(window, "rank")
    return 0.0 if rank is None else rank / _ranks(window)


def _ranks(window: Sequence[Record]) -> float:
    """Number of entries that a batch ranks."""
    return (median_of(window, "num_positives") or 0) + (median_of(window, "num_negatives") or 0)


def _short(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2g}"
