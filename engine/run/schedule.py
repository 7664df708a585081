"""Learning rate as a pure function of the step, and the rule that adapts a recipe to another batch size."""

import math
from dataclasses import dataclass

from engine.run.config import Config


@dataclass(frozen=True)
class Schedule:
    """Resolved schedule of one run: rates and lengths after scaling, in optimizer steps."""

    lr: float
    warmup_steps: int
    warmup_factor: float
    steps_per_epoch: int
    epochs: int
    milestones: tuple[int, ...]  # epochs
    gamma: float
    cosine: bool
    summary: str  # what the scaling rule did, one line

    @property
    def total_steps(self) -> int:
        return self.steps_per_epoch * self.epochs

    def learning_rate(self, step: int) -> float:
        """Rate of 0-based optimizer step `step`: linear warm-up times step or half-cosine decay."""
        if self.cosine:
            decay = 0.5 * (1 + math.cos(math.pi * step / self.total_steps))
        else:
            decay = self.gamma ** sum(step // self.steps_per_epoch >= milestone for milestone in self.milestones)
        warmup = 1.0
        if step < self.warmup_steps:
            warmup = self.warmup_factor + (1 - self.warmup_factor) * step / self.warmup_steps
        return self.lr * decay * warmup


def build_schedule(config: Config, num_images: int) -> Schedule:
    """Applies the linear scaling rule: rate × k and warm-up steps ÷ k, with k = batch_size / base_batch_size.

    The warm-up so covers the same number of images; epochs and milestones need no scaling. An epoch is
    floor(num_images / batch_size) steps.
    """
    optimizer, schedule = config.optimizer, config.schedule
    batch_size = config.data.batch_size
    k = batch_size / optimizer.base_batch_size if optimizer.scale_lr else 1.0
    lr, warmup_steps = optimizer.lr * k, round(schedule.warmup_steps / k)
    if batch_size == optimizer.base_batch_size:
        summary = f"lr {lr:g}, warm-up {warmup_steps} steps (batch {batch_size} is the base batch: nothing scaled)"
    elif optimizer.scale_lr:
        summary = (
            f"lr {optimizer.lr:g} -> {lr:g}, warm-up {schedule.warmup_steps} -> {warmup_steps} steps "
            f"(batch {batch_size}, base batch {optimizer.base_batch_size}; optimizer.scale_lr=false turns this off)"
        )
    else:
        summary = (
            f"lr {lr:g}, warm-up {warmup_steps} steps, not scaled (optimizer.scale_lr is false; "
            f"batch {batch_size}, base batch {optimizer.base_batch_size})"
        )
    return Schedule(
        lr=lr,
        warmup_steps=warmup_steps,
        warmup_factor=schedule.warmup_factor,
        steps_per_epoch=num_images // batch_size,
        epochs=schedule.epochs,
        milestones=tuple(schedule.milestones),
        gamma=schedule.gamma,
        cosine=schedule.kind == "cosine",
        summary=summary,
    )
