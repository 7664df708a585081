"""Steps whose loss or gradient was not finite on some process: said in the log, and too many in a row end the run."""

import logging
from pathlib import Path

import torch

from data.files import write_atomically
from engine.training.train_step import MicroBatch, TrainingError, TrainStep

log = logging.getLogger(__name__)


def report_bad_step(
    train_step: TrainStep, stats: dict[str, float], micro_batches: list[MicroBatch], folder: Path
) -> None:
    """Logs the step that every process has just skipped; called by all of them.

    Args:
        stats, micro_batches: of the step; the micro-batches of this process.
        folder: the run's, where each process leaves bad_batch.rank<r>.pt when it gives up: a dict of `step`,
            `losses`, and per micro-batch `images` (uint8) and `targets`.
    Raises:
        TrainingError: `run.max_bad_steps` such steps in a row; alike on every process.
    """
    processes, in_a_row = train_step.processes, train_step.skipped_in_a_row
    own_ids = [target["image_id"] for _, targets in micro_batches for target in targets]
    image_ids = [image_id for ids in processes.gather(own_ids) for image_id in ids]
    losses = {name: value for name, value in stats.items() if name.startswith("loss") or name == "grad_norm"}
    numbers = ", ".join(f"{name} {value:.4g}" for name, value in losses.items())
    problem = f"step {train_step.done}: loss or gradient not finite ({numbers}); images {image_ids}"
    if in_a_row < train_step.config.run.max_bad_steps:
        log.warning("%s: skipped", problem)
        return
    images, targets = zip(*micro_batches, strict=True)
    batch = {
        "step": train_step.done,
        "losses": losses,
        "images": list(images),
        "targets": [list(each) for each in targets],
    }
    path = folder / f"bad_batch.rank{processes.rank}.pt"
    write_atomically(path, lambda file: torch.save(batch, file))
    raise TrainingError(
        f"{problem}: {in_a_row} such steps in a row (run.max_bad_steps), the batch is in {path}; "
        "lower optimizer.lr, set optimizer.clip_grad_norm, or try run.precision=float32"
    )
