"""What each process of test_optimal_lrp.py does; in a file of its own because spawned processes import it."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

Images = list[dict[str, Tensor]]


def batches(num_images: int = 12) -> tuple[Images, Images]:
    """Images of a few classes with crowd regions and areas of masks, and detections upon and beside their objects."""
    generator = torch.Generator().manual_seed(0)

    def corners(count: int) -> Tensor:
        start = 200 * torch.rand(count, 2, generator=generator)
        return torch.cat([start, start + 8 + 150 * torch.rand(count, 2, generator=generator)], dim=1)

    preds, targets = [], []
    for index in range(num_images):
        count = index % 5
        boxes, labels = corners(count), 3 * torch.randint(4, (count,), generator=generator)
        target = {"boxes": boxes, "labels": labels}
        if index % 3:
            target["iscrowd"] = torch.rand(count, generator=generator) < 0.2
            target["area"] = 0.7 * (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
        near = boxes.repeat(4, 1) + 6 * torch.randn(4 * count, 4, generator=generator)
        near[:, 2:] = near[:, 2:].maximum(near[:, :2])
        preds.append(
            {
                "boxes": torch.cat([near, corners(3)]),
                "scores": torch.rand(4 * count + 3, generator=generator),
                "labels": torch.cat([labels.repeat(4), torch.tensor([3, 6, 21])]),  # nothing is of the last class
            }
        )
        targets.append(target)
    return preds, targets


def plain(result: dict) -> dict:
    return {name: value.item() if isinstance(value, Tensor) else value for name, value in result.items()}


def work(rank: int, folder: str, with_torchmetrics: bool) -> None:
    """Process 0 gets the first eight images in two updates, process 1 the rest, and later one update more than 0."""
    if not with_torchmetrics:
        sys.modules["torchmetrics"] = None  # type: ignore[assignment]  # so that importing it fails
    from engine.metrics import OptimalLRP

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    preds, targets = batches()
    metric = OptimalLRP()
    found = {"nothing": plain(metric.compute())}
    if rank == 0:
        metric.update(preds[:3], targets[:3])
        metric.update(preds[3:8], targets[3:8])
    else:
        metric.update([], [])
    found["one empty"] = plain(metric.compute())
    if rank == 1:
        metric.update(preds[8:], targets[8:])
    else:
        metric.update([], [])  # each forgets the value that it remembers, or only one would compute again
    found["all"] = plain(metric.compute())
    metric.sync()
    found["synced"] = plain(metric.compute())
    metric.unsync()
    if rank == 0:
        metric.reset()
    else:
        metric.update([], [])
    found["last four"] = plain(metric.compute())
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()
