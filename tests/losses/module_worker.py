"""What each process of test_loss_module_group.py does; in a file of its own because spawned processes import it."""

from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from losses import ALRPLoss, APLoss, RankSortLoss

STEPS, NUM_CLASSES, EVERY = 5, 3, 2
LOSSES = {
    "alrp": lambda group: ALRPLoss(balance_every=EVERY, group=group),
    "alrp, boxes alike": lambda group: ALRPLoss(box_weights="equal", loc_error="iou", group=group),
    "ap": lambda group: APLoss(box_loss="giou", group=group),
    "rs": lambda group: RankSortLoss(group=group),
}


def steps() -> list[dict[str, Tensor]]:
    """Joined batches of two processes, each of 2 images × 12 positions; the second process has no positive at first,
    in the last step nobody has."""
    generator = torch.Generator().manual_seed(0)
    batches = []
    for step in range(STEPS):
        corner, size = torch.rand(2, 4, 12, 2, generator=generator)
        labels = torch.randint(-1, 3 * NUM_CLASSES, (4, 12), generator=generator)  # two thirds background
        labels[2 if step == 0 else 4 :] = NUM_CLASSES
        if step == STEPS - 1:
            labels[:] = NUM_CLASSES
        features = torch.randn(4, 12, 6, generator=generator)
        batches.append({"features": features, "labels": labels, "boxes": torch.cat([corner, corner + size], 2)})
    return batches


class Head(nn.Module):
    """Logits and boxes of positions, with the loss inside."""

    def __init__(self, criterion: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.logits, self.sides, self.criterion = nn.Linear(6, NUM_CLASSES), nn.Linear(6, 4), criterion

    def forward(self, features: Tensor, labels: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        corner, size = self.sides(features).split(2, dim=-1)
        return self.criterion(self.logits(features), labels, torch.cat([corner, corner + size.exp()], -1), boxes)


def train(model: nn.Module, own: slice) -> dict:
    """Parts and gradients of every step, and the weights of self-balancing, of this process's images."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    results: dict = {"parts": [], "gradients": [], "balances": []}
    for batch in steps():
        parts = model(*(value[own] for value in batch.values()))
        optimizer.zero_grad()
        sum(parts).backward()
        results["parts"].append(torch.stack(parts).detach())
        results["gradients"].append(torch.cat([p.grad.flatten() for p in model.parameters()]).clone())
        results["balances"].append({name: value.clone() for name, value in model.named_buffers()})
        optimizer.step()
    return results


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    own = slice(2 * rank, 2 * rank + 2)
    results = {name: train(DistributedDataParallel(Head(make("world"))), own) for name, make in LOSSES.items()}
    torch.save(results, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()
