"""One of several processes that take steps together over gloo, on CPUs or sharing one GPU, which NCCL refuses."""

import json
from pathlib import Path

import torch
import torch.distributed as dist

from data import train_loader
from engine.run.config import load_config
from engine.run.datasets import training_set
from engine.run.distributed import Processes
from engine.run.schedule import build_schedule
from engine.training.train_step import TrainStep


def take_steps(rank: int, world_size: int, config_file: Path, device: str, steps: int, output: Path) -> None:
    """Writes the losses of the steps as JSON; the same on every process."""
    torch.set_num_threads(1)
    if world_size > 1:
        dist.init_process_group("gloo", init_method=f"file://{output}.store", rank=rank, world_size=world_size)
    # a larger rate would amplify the rounding of float32: every ReLU has a kink, and aLRP ranks positives hard
    config = load_config(config_file, ["optimizer.lr=0.001", "run.log_every=100", "run.precision=float32"])
    dataset = training_set(config)
    processes = Processes(rank, world_size, torch.device(device))
    step = TrainStep(config, processes, build_schedule(config, len(dataset)), len(dataset.class_names), False)
    batches = iter(train_loader(dataset, config.data.batch_size, rank=rank, world_size=world_size))
    losses = [step([next(batches)])[0]["loss"] for _ in range(steps)]
    if rank == 0:
        output.write_text(json.dumps(losses))
    if world_size > 1:
        dist.destroy_process_group()
