"""A dry run: the first few steps of a training tell its memory and time, before any run folder is made."""

import logging
import math
import time
from statistics import median

from data.counts import counted
from data.transforms import Resize
from engine.reporting.tensorboard import peak_memory_gb
from engine.run.clock import duration
from engine.run.datasets import training_resize
from engine.run.loading import loader_errors, wait_for_each
from engine.run.stretch import described, stretch_note
from engine.training.plan import log_plan
from engine.training.train_step import TrainingError
from engine.training.trainer import Trainer

log = logging.getLogger(__name__)

MAX_STEPS = 6
ENOUGH = 10.0  # seconds, from which no further step is timed


@loader_errors()
def dry_run(trainer: Trainer) -> str:
    """Takes a few steps, the first of which is a warm-up and not timed; writes nothing.

    Returns:
        The plan, a line each: images, batch, steps, learning rate, memory and time.
    Raises:
        TrainingError: a loss that is not finite.
        LoaderError: a loader process died, or no batch came for minutes.
    """
    log_plan(trainer.train_step, trainer.dataset, trainer.eval_set, trainer.stop_step)
    data, processes, batches = trainer.config.data, trainer.processes, wait_for_each(trainer.batches)
    seconds: list[float] = []
    to_do = max(0, trainer.stop_step - trainer.step)  # before the steps below, which count as taken
    while len(seconds) < 2 or (len(seconds) < MAX_STEPS and sum(seconds) < ENOUGH):
        start = time.monotonic()
        # a logged step needs the most memory, and takes longer: the one that is not timed
        stats, _ = trainer.train_step([next(batches) for _ in range(data.accumulate)], watched=not seconds)
        # the main process's clock, so that all take equally many steps
        seconds.append(processes.from_main(time.monotonic() - start))
        if len(seconds) == 1:
            losses = {name: value for name, value in stats.items() if name.startswith("loss")}
            log.info("the first batch gives %s", ", ".join(f"{name} {value:.4f}" for name, value in losses.items()))
        if not math.isfinite(stats["loss"]):
            raise TrainingError("dry run: the loss is not finite; look at the data, or lower optimizer.lr")
    size = described(Resize(data.train_size) if data.augmentation == "crop" else training_resize(data))
    memory = max(processes.gather(peak_memory_gb(processes.device)))

    schedule, step_time = trainer.schedule, median(seconds[1:])
    decay = "cosine" if schedule.cosine else f"× {schedule.gamma:g} after epochs {[*schedule.milestones]}"
    epoch, rest = (duration(steps * step_time) for steps in (schedule.steps_per_epoch, to_do))
    rows = {
        "images": f"{len(trainer.dataset)} training, {len(trainer.eval_set)} validation",
        "classes": f"{len(trainer.dataset.class_names)}",
        "batch": f"{counted(data.batch_size, 'image')} of {size} pixels, over "
        f"{counted(processes.world_size, 'process')}",
        "steps": f"{schedule.steps_per_epoch} an epoch, {trainer.stop_step} in all",
        "learning rate": f"{schedule.lr:g} after {schedule.warmup_steps} steps of warm-up, {decay}",
        "memory": f"{memory:.2f} GB {'of the GPU' if processes.device.type == 'cuda' else 'of RAM'} a process",
        "time": f"about {step_time:.2g} s a step, {epoch} an epoch, {rest} in all, evaluation aside",
        "run folder": f"{trainer.folder.path}, {'which is there' if trainer.folder.path.exists() else 'not made yet'}",
    }
    for name, dataset, training in (("training", trainer.dataset, True), ("validation", trainer.eval_set, False)):
        if (note := stretch_note(dataset, trainer.config, training)) is not None:
            rows[f"{name} shapes"] = note
    return "\n".join(f"{name:<19}{text}" for name, text in rows.items())
