"""What each process of test_free_anchor.py does; in a file of its own because spawned processes import it."""

from pathlib import Path

import torch
import torch.distributed as dist

from detector.anchors import AnchorGenerator
from detector.objectives import FreeAnchor

K = 3
LEVELS = AnchorGenerator((8, 16))([(12, 12), (6, 6)])


def make_batch() -> tuple[torch.Tensor, torch.Tensor, list[dict[str, torch.Tensor]]]:
    """Predictions of four images, float64, the last of which has no object."""
    generator = torch.Generator().manual_seed(0)
    shape = (4, sum(map(len, LEVELS)))
    logits = torch.randn(*shape, K, generator=generator).double() - 2
    deltas = torch.randn(*shape, 4, generator=generator).double() * 0.5
    targets = []
    for count in (2, 1, 3, 0):
        corner, size = (
            torch.rand(count, 2, generator=generator) * 50,
            10 + torch.rand(count, 2, generator=generator) * 40,
        )
        boxes, labels = torch.cat([corner, corner + size], dim=1), torch.arange(count) % K
        targets.append({"boxes": boxes, "labels": labels, "crowd": torch.zeros(count, dtype=torch.bool)})
    return logits, deltas, targets


def parts_and_gradients(images: slice, group: dist.ProcessGroup | None = None) -> dict[str, torch.Tensor]:
    """The parts of the loss of some of the images, and the gradients of it."""
    logits, deltas, targets = make_batch()
    inputs = [logits[images].requires_grad_(), deltas[images].requires_grad_()]
    losses = FreeAnchor()(*inputs, LEVELS, targets[images], group)
    losses["loss"].backward()
    return {name: value.detach() for name, value in losses.items()} | {
        name: value.grad for name, value in zip(("logits", "deltas"), inputs, strict=True)
    }


def work(rank: int, folder: str) -> None:
    """Process 0 has three images, process 1 the one without objects."""
    store = dist.FileStore(f"{folder}/store", 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    images = slice(0, 3) if rank == 0 else slice(3, 4)
    torch.save(parts_and_gradients(images, dist.group.WORLD), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()
