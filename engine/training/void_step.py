"""The last step of a process to which no data come after a signal."""

import logging

from data.loader import kill_workers
from engine.training.train_step import TrainStep

log = logging.getLogger(__name__)


def end_step_of_the_others(train_step: TrainStep) -> None:
    """Takes part in a step for which this process has no data, so that the others come out of its collectives."""
    kill_workers()
    log.warning("no data came after the signal: the step is left out")
    if train_step.processes.world_size > 1:
        train_step([train_step.blank_batch()] * train_step.config.data.accumulate, stop=True, void=True)
