"""What each process of the adapters' tests does; in a file of its own because spawned processes import it."""

from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

SEEDS = (0, 1, 2, 3)  # of the joined batch's images, two for each process

Build = Callable[[str], nn.Module]
Losses = Callable[[nn.Module, tuple[int, ...]], Tensor]


def first_gradients(model: nn.Module, losses: Losses, seeds: tuple[int, ...]) -> dict[str, Tensor]:
    """Gradients by parameter after one backward pass over images made from seeds."""
    losses(model, seeds).backward()
    own = model.module if isinstance(model, DistributedDataParallel) else model
    return {name: p.grad for name, p in own.named_parameters() if p.grad is not None}


def work(rank: int, folder: str, build: Build, losses: Losses, name: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    model = DistributedDataParallel(build(name), find_unused_parameters=True)
    torch.save(first_gradients(model, losses, SEEDS[2 * rank : 2 * rank + 2]), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def assert_two_processes_equal_one(folder: Path, build: Build, losses: Losses, name: str) -> None:
    """First gradients under DistributedDataParallel are those of one process with the joined batch, to 1e-5."""
    mp.spawn(work, (str(folder), build, losses, name), nprocs=2)
    wanted = first_gradients(build(name), losses, SEEDS)
    assert sum(bool(gradient.any()) for gradient in wanted.values()) > 10
    largest = max(gradient.abs().max().item() for gradient in wanted.values())
    for rank in range(2):
        gradients = torch.load(folder / f"{rank}.pt")
        for key, gradient in wanted.items():
            assert (gradients[key] - gradient).abs().max() <= 1e-5 * largest, key
