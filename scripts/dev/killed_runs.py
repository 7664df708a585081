"""Runs of a small config that scripts/dev/torture.py kills and resumes, and what is different in the end."""

import multiprocessing
import os
import random
import sys
import time
from collections.abc import Sequence
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
import torch.distributed as dist
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train
from engine.run.checkpoint import load_checkpoint
from engine.run.cli import run_process

CONFIG = """
model: {{backbone: resnet18, norm: batch, frozen_stages: 0, weights: null, fpn_channels: 32, head_convs: 1}}
data: {{root: {folder}/data, train_split: train, val_split: val, image_size: 64, batch_size: 6, workers: 1}}
optimizer: {{lr: 0.01, base_batch_size: 6, clip_grad_norm: 10.0, ema_decay: 0.9}}
schedule: {{epochs: {epochs}, milestones: [2], warmup_steps: 2}}
evaluation: {{batch_size: 4}}
run: {{dir: {folder}/runs, device: cpu, precision: float32, log_every: 1, checkpoint_every: 1}}
"""
PRELOADED = (
    "engine.training.dry_run",
    "torch.utils.tensorboard",
    "pycocotools.cocoeval",
)  # by train.main
MOST_SECONDS_INTO_A_WRITE = 0.2
SECONDS_FOR_SURVIVORS = 30.0
PATIENCE = 600.0  # seconds after which a run that neither ends nor is killed hangs


def work(rank: int, world_size: int, port: int, arguments: list[str], output: str) -> None:
    """One process of a run, as torchrun would start it; what it says is appended to the file `output`."""
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world_size),
        LOCAL_WORLD_SIZE=str(world_size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        TORCHELASTIC_USE_AGENT_STORE="True",
    )
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)  # of loader workers, as where train.py is started itself
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.argv = ["train.py", *arguments]
    run_process(train.main)


class Run:
    """A run of the small config under a name, that can be started, killed and resumed."""

    def __init__(self, folder: Path, name: str, world_size: int) -> None:
        self.path, self.world_size = folder / "runs" / name, world_size
        self.output = folder / f"{name}.txt"
        self.arguments = ["--config", str(folder / "torture.yaml"), "--resume", "auto", f"run.name={name}"]
        self.server = multiprocessing.get_context("forkserver")
        os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": sys.path[0]}  # for the server that forks processes
        self.server.set_forkserver_preload(["train", *PRELOADED])

    def temporaries(self) -> set[str]:
        """Checkpoints that are being written, or were when their writer was killed."""
        return {path.name for path in (self.path / "checkpoints").glob(".*.pt.*.tmp")}

    def start(self, choose: random.Random | None = None, seconds: float = 0.0) -> bool | None:
        """Starts or resumes the run; with `choose` kills it at a moment within about `seconds`.

        Returns:
            None where it came to its end; else whether the kill fell into the writing of a checkpoint.
        """
        store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # torchrun's part
        before = self.temporaries()
        processes = [
            self.server.Process(target=work, args=(rank, self.world_size, store.port, self.arguments, str(self.output)))
            for rank in range(self.world_size)
        ]
        for process in processes:
            process.start()
        killed = choose is not None and self._kill(processes, choose, seconds, before)
        if killed:  # a survivor ends by itself, unless it still waits to be joined; torchrun would end it at once
            wait_until = time.monotonic() + SECONDS_FOR_SURVIVORS
            while any(process.is_alive() for process in processes) and time.monotonic() < wait_until:
                wait([process.sentinel for process in processes if process.is_alive()], 1)
            for process in processes:
                process.kill()
        deadline = time.monotonic() + PATIENCE
        while any(process.is_alive() for process in processes):
            wait([process.sentinel for process in processes if process.is_alive()], 1)
            if time.monotonic() > deadline:
                raise RuntimeError(f"the processes of {self.path} hang; see {self.output}")
        statuses = [process.exitcode for process in processes]
        if not any(statuses):
            return None
        if not killed:
            raise RuntimeError(f"{self.path} ended with statuses {statuses} unprovoked; see {self.output}")
        return bool(self.temporaries() - before)

    def _kill(self, processes: Sequence[BaseProcess], choose: random.Random, seconds: float, before: set[str]) -> bool:
        """Whether there still was one to kill."""
        wait([process.sentinel for process in processes], choose.uniform(0, seconds))
        if choose.random() < 0.5:
            while not self.temporaries() - before and all(process.is_alive() for process in processes):
                time.sleep(0.001)
            time.sleep(choose.uniform(0, MOST_SECONDS_INTO_A_WRITE))
        victims = processes if choose.random() < 0.5 else [choose.choice(processes)]
        alive = [victim for victim in victims if victim.is_alive()]
        for victim in alive:
            victim.kill()
        return bool(alive)


OWN = ("config", "provenance")  # entries of a checkpoint that name the run


def differences(run: Run, undisturbed: Run) -> list[str]:
    """Differences in the final checkpoint, in metrics.jsonl and in TensorBoard's points."""
    found = []
    states = [load_checkpoint(r.path / "checkpoints/last.pt") for r in (run, undisturbed)]
    flat = [_flatten({key: value for key, value in state.items() if key not in OWN}) for state in states]
    found += [f"last.pt: {key}" for key in sorted(flat[0].keys() ^ flat[1].keys())]
    found += [f"last.pt: {key}" for key in flat[0].keys() & flat[1].keys() if not _same(flat[0][key], flat[1][key])]
    if (run.path / "metrics.jsonl").read_bytes() != (undisturbed.path / "metrics.jsonl").read_bytes():
        found.append("metrics.jsonl")
    curves = [_curves(r.path) for r in (run, undisturbed)]
    for tag in sorted(curves[0].keys() | curves[1].keys()):
        if curves[0].get(tag) != curves[1].get(tag):
            found.append(f"TensorBoard: {tag}")
    return found


def _flatten(value: object, name: str = "") -> dict[str, object]:
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {key: leaf for k, v in items for key, leaf in _flatten(v, f"{name}.{k}").items()}
    return {name: value}


def _same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()
    return type(a) is type(b) and a == b


def _curves(folder: Path) -> dict[str, list]:
    """Points of every tag, without TensorBoard's own repair; of perf/… the steps alone, as its values are times."""
    events = EventAccumulator(
        str(folder), size_guidance={"scalars": 0, "images": 0}, purge_orphaned_data=False
    ).Reload()
    tags = events.Tags()
    curves: dict[str, list] = {}
    for tag in tags["scalars"]:
        points = events.Scalars(tag)
        curves[tag] = [p.step if tag.startswith("perf/") else (p.step, p.value) for p in points]
    for tag in tags["images"]:
        curves[tag] = [(image.step, image.encoded_image_string) for image in events.Images(tag)]
    return curves


def torture(folder: Path, world_size: int, kills: int, epochs: int, choose: random.Random) -> bool:
    """Kills runs of `world_size` processes until there were `kills` kills; whether all ended as if undisturbed."""
    (folder / "torture.yaml").write_text(CONFIG.format(folder=folder, epochs=epochs))
    undisturbed = Run(folder, f"p{world_size}-undisturbed", world_size)
    begin = time.monotonic()
    undisturbed.start()
    seconds = (time.monotonic() - begin) / 3  # so that a run takes several kills and gets on between them
    in_write: list[bool] = []
    same, count = True, 0
    while len(in_write) < kills:
        count += 1
        run = Run(folder, f"p{world_size}-killed-{count}", world_size)
        first, begin = len(in_write), time.monotonic()
        while (outcome := run.start(choose if len(in_write) < kills else None, seconds)) is not None:
            in_write.append(outcome)
        found = differences(run, undisturbed)
        same &= not found
        counts = f"{len(in_write) - first} kills, {sum(in_write[first:])} of them while a checkpoint was written"
        took = f"{time.monotonic() - begin:.0f} s"
        print(f"processes {world_size}, run {count}: {counts}, {took}: {found or 'no difference'}", flush=True)
    print(f"processes {world_size}: {len(in_write)} kills, {sum(in_write)} while a checkpoint was written", flush=True)
    return same
