"""The plan of a run on the console: what will be trained on what, and for how long."""

import logging

from data import CocoDetection
from data.counts import counted
from engine.run.groups import DataConfig
from engine.run.precision import resolve_precision
from engine.training.train_step import TrainStep

log = logging.getLogger(__name__)


def log_plan(train_step: TrainStep, dataset: CocoDetection, eval_set: CocoDetection, stop_step: int) -> None:
    """Says what will be trained on what, and warns of a plan that does not fit itself.

    Args:
        dataset, eval_set: the training and the validation split.
        stop_step: step at which the run ends.
    """
    config, processes, schedule = train_step.config, train_step.processes, train_step.schedule
    parameters = sum(parameter.numel() for parameter in train_step.parameters)
    log.info(
        "%d training and %s of %s; %.1f M trained parameters; %s on %s in %s",
        len(dataset),
        counted(len(eval_set), "validation image"),
        counted(len(dataset.class_names), "class"),
        parameters / 1e6,
        counted(processes.world_size, "process"),
        processes.device.type,
        resolve_precision(config.run.precision, processes.device),
    )
    log.info(
        "%s of %s, at step %d of %d",
        counted(schedule.epochs, "epoch"),
        counted(schedule.steps_per_epoch, "step"),
        train_step.done,
        stop_step,
    )
    log.info(schedule.summary)
    model, loss = config.model.model_dump(), config.loss
    if own := [f"model.{key}={model[key]} ({value})" for key, value in loss.model_defaults.items() if key in model]:
        log.info("loss.name=%s has defaults of its own, in brackets: %s", loss.name, ", ".join(own))
    if schedule.warmup_steps > schedule.total_steps / 2:
        log.warning(
            "the warm-up takes %d of %d steps; lower schedule.warmup_steps",
            schedule.warmup_steps,
            schedule.total_steps,
        )
    if not schedule.cosine and schedule.milestones and schedule.milestones[0] >= schedule.epochs:
        log.warning(
            "the learning rate never falls: schedule.milestones begin at epoch %d, of %d; lower them, or set "
            "schedule.kind=cosine",
            schedule.milestones[0],
            schedule.epochs,
        )
    data = config.data
    if data.short_sides is not None and config.evaluation.short_side is None:
        log.warning(
            "training keeps the shape of images (data.short_side), evaluation stretches them to data.image_size; set "
            "evaluation.short_side and evaluation.long_side"
        )
    if None not in (data.short_sides, config.evaluation.short_side) and data.image_size != DataConfig().image_size:
        log.warning("data.image_size does nothing beside data.short_side and evaluation.short_side; set these two")
    if data.accumulate > 1:
        log.info(
            "data.accumulate: %d micro-batches a step, each ranked by itself: %d images rank together, not %d",
            data.accumulate,
            data.batch_size // data.accumulate,
            data.batch_size,
        )
