"""The processes of one run: device, rank, and the few collectives that the trainer needs."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from engine.run.config import ConfigError
from engine.run.groups import RunConfig
from engine.run.threads import thread_count


@dataclass(frozen=True)
class Processes:
    """This process among those of the run. Without torchrun: rank 0 of 1 and no process group."""

    rank: int
    world_size: int
    device: torch.device
    store: dist.Store | None = None  # what the processes know of each other, kept by torchrun

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @property
    def group(self) -> dist.ProcessGroup | None:
        return dist.group.WORLD if self.world_size > 1 else None

    def mean(self, values: Tensor) -> Tensor:
        """Average of a small tensor over the processes, the same on each."""
        if self.world_size > 1:
            dist.all_reduce(values)
            values = values / self.world_size
        return values

    def gather(self, value: Any) -> list[Any]:
        """Every process's picklable value in rank order, on every process."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def from_main(self, value: Any) -> Any:
        """The main process's picklable value, on every process."""
        if self.world_size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def copy_buffers_from_main(self, module: nn.Module) -> None:
        """Gives every process the main one's buffers: BatchNorm statistics differ, as each sees its own images."""
        if self.world_size > 1:
            for buffer in module.buffers():
                dist.broadcast(buffer, src=0)

    def barrier(self) -> None:
        if self.world_size > 1:
            dist.barrier()

    def first_to_fail(self) -> bool:
        """Whether no process failed before this one. To be asked once, by a process that fails: the others fail with
        it, when their next collective finds it gone, and have nothing to say."""
        if self.store is None:
            return True
        try:
            return self.store.add("failed", 1) == 1
        except RuntimeError:  # the store went down with its host
            return True


def choose_device(name: str) -> torch.device:
    """Device for `run.device`: auto takes CUDA where there is one. Under torchrun the GPU of LOCAL_RANK.

    Raises:
        ConfigError: CUDA asked for where there is none, or more processes on a host than it has GPUs.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("run.device: cuda asked for, but this machine has no usable CUDA device; use run.device=cpu")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    needed, found = int(os.environ.get("LOCAL_WORLD_SIZE", 1)), torch.cuda.device_count()
    if needed > found:  # asked alike by every process of the host, so that none waits for another
        raise ConfigError(
            f"torchrun: {needed} processes on this host and {found} GPUs; lower --nproc-per-node or use run.device=cpu"
        )
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))


@contextmanager
def join_processes(run: RunConfig) -> Iterator[Processes]:
    """Joins the process group that torchrun announces in the environment (nccl on GPUs, gloo on CPUs), and sets the
    threads of this process (`run.threads`).

    In a collective a process waits `run.collective_minutes` for the others before it fails.

    Raises:
        ConfigError: as `choose_device`.
    """
    device = choose_device(run.device)
    torch.set_num_threads(thread_count(run))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield Processes(0, 1, device)
        return
    timeout = timedelta(minutes=run.collective_minutes)
    store, rank, world_size = next(rendezvous("env://", timeout=timeout))
    # torchrun keeps one store over its restarts, with the addresses of processes that are gone
    store = dist.PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=timeout)
    yield Processes(rank, world_size, device, store)
    dist.barrier()  # so that no process leaves while another still talks to it
