"""The last step of a process to which no data come after a signal."""

import logging

from data import padded_size
from data.loader import blank_batch, kill_workers
from engine.training.train_step import TrainStep

log = logging.getLogger(__name__)


def end_step_of_the_others(train_step: TrainStep) -> None:
    """Takes part in a step for which this process has no data, so that the others come out of its collectives."""
    kill_workers()
    log.warning("no data came after the signal: the step is left out")
    data, world_size = train_step.config.data, train_step.processes.world_size
    if world_size > 1:
        blank = blank_batch(data.batch_size // (world_size * data.accumulate), padded_size(data.train_size))
        train_step([blank] * data.accumulate, stop=True, void=True)
