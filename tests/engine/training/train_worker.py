"""One of several training processes, forked from a server that has imported everything, and what may befall it."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import torch

from data import coco
from engine.run import stop_signal
from engine.training.train_step import TrainStep
from scripts.dev.killed_runs import work

Fault = Callable[[TrainStep], None]


def main(rank: int, world_size: int, port: int, arguments: list[str], output: Path, fault: Fault | None) -> None:
    """Runs train.py as torchrun would; `fault` is called before each step. What it says goes to the file `output`."""
    if fault is not None:
        take_step = TrainStep.__call__

        def step(self: TrainStep, *args: object, **options: object) -> object:
            fault(self)
            return take_step(self, *args, **options)

        TrainStep.__call__ = step
    work(rank, world_size, port, arguments, str(output))


def raise_on_rank_1(step: TrainStep) -> None:
    if step.done == 1 and step.processes.rank == 1:
        raise ValueError("a bug on rank 1")


def nan_on_rank_1(step: TrainStep) -> None:
    """Steps 2 and 3 only."""
    if step.processes.rank == 1:
        step.detector.pixel_mean[:] = torch.nan if step.done in (1, 2) else 0.5


def die_on_rank_1(step: TrainStep) -> None:
    if step.done == 1 and step.processes.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)


def hang_on_rank_1(step: TrainStep) -> None:
    if step.done == 1 and step.processes.rank == 1:
        signal.pause()


def nan_on_each_rank(step: TrainStep) -> None:
    """Of two: images of NaN in step 2 on the second, in step 3 on the first."""

    def poison(_: object, inputs: tuple) -> tuple | None:
        bad = {1: 1, 2: 0}.get(step.done) == step.processes.rank
        return (inputs[0] * torch.nan, *inputs[1:]) if bad else None

    if step.done == 0:
        step.detector.register_forward_pre_hook(poison)


def kill_a_loader_process(step: TrainStep) -> None:
    if step.done == 1:
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)


def never_read(*_: object) -> None:
    while True:
        signal.pause()


def starve_the_last_rank(step: TrainStep) -> None:
    """After the second step the last process waits for data for ever, and the first one is asked to stop."""
    stop_signal.WAIT_SECONDS = 1.0
    if step.done == 1:
        processes = step.processes
        if processes.rank == processes.world_size - 1:
            coco.read_image = never_read
        if processes.rank == 0:
            threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
