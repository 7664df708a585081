"""Traffic of ranking over several processes."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from losses import alrp_loss


def benchmark_traffic() -> list[dict]:
    """Rows of the table: what one step of aLRP sends, by number of processes."""
    rows = []
    for world_size in (1, 2, 4, 8):
        with tempfile.TemporaryDirectory() as folder:
            mp.spawn(count_traffic, (world_size, folder), nprocs=world_size)
            rows += [torch.load(Path(folder) / "row.pt")]
    return rows


def count_traffic(rank: int, world_size: int, folder: str) -> None:
    """One process of the group; the first one notes what it received."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world_size)
    received = []

    def counted(function: Callable) -> Callable:
        def call(output: Tensor | list[Tensor], *args: object, **options: object) -> object:
            tensors = output if isinstance(output, list) else [output]
            received.append(sum(tensor.numel() * tensor.element_size() for tensor in tensors))
            return function(output, *args, **options)

        return call

    dist.all_reduce, dist.all_gather = counted(dist.all_reduce), counted(dist.all_gather)
    generator = torch.Generator().manual_seed(rank)
    logits = torch.randn(200_000 // world_size, generator=generator, requires_grad=True)
    targets = (torch.arange(len(logits)) < 1000 // world_size).long()
    torch.add(*alrp_loss(logits, targets, torch.rand(1000 // world_size), group=dist.group.WORLD)).backward()
    if rank == 0:
        row = {"processes": world_size, "collectives": len(received), "KiB received by each": sum(received) / 1024}
        torch.save(row, Path(folder) / "row.pt")
    dist.barrier()
    dist.destroy_process_group()
