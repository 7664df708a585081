"""Batches of logits for the benchmarks of the losses: drawn on the device, or of a network in training."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.coco_like import make_coco_like
from benchmarks.loss import SCORES
from data import train_loader
from data.loader import blank_batch
from engine.run.config import load_config
from engine.run.datasets import training_set
from engine.run.distributed import Processes
from engine.run.schedule import build_schedule
from engine.training.train_step import MicroBatch, TrainStep
from losses.alrp import localisation_errors
from losses.loss import Loss
from losses.matched import Matched

ROOT = Path(__file__).resolve().parents[2]
SHARES = (1.0, 0.9, 0.0, 1.1)  # of the positives, from batch to batch: no step is like the one before
LEARNING_RATE = 0.002  # for sixteen images, of a network that nothing pretrained
# For tests. In bfloat16 PyTorch leaves parts of a convolution's weight gradient unwritten on maps of one pixel.
SMALL = ["data.image_size=64", "model.backbone=resnet18", "model.fpn_channels=32", "run.precision=float32"]


class Batch(NamedTuple):
    """M logits with their targets as an objective makes them: (M,) int8, and indices and errors of the P positives."""

    logits: Tensor
    targets: Tensor
    entries: Tensor
    loc_errors: Tensor

    def in_type(self, dtype: torch.dtype) -> "Batch":
        return self._replace(logits=self.logits.to(dtype))


def drawn_batches(scores: str, num_positives: int, num_logits: int, device: torch.device) -> list[Batch]:
    """Batches of about so many positives, one of them without any; `scores` is a key of `benchmarks.loss.SCORES`."""
    generator = torch.Generator(device).manual_seed(0)
    negatives, positives = SCORES[scores]
    batches = []
    for share in SHARES:
        count = round(share * num_positives)
        entries = torch.randperm(num_logits, generator=generator, device=device)[:count].sort().values
        targets = torch.zeros(num_logits, dtype=torch.int8, device=device).index_fill_(0, entries, 1)
        logits = torch.randn(num_logits, generator=generator, device=device).mul_(negatives[1]).add_(negatives[0])
        drawn = torch.randn(count, generator=generator, device=device)
        logits[entries] = drawn.mul_(positives[1]).add_(positives[0])
        batches.append(Batch(logits, targets, entries, torch.rand(count, generator=generator, device=device)))
    return batches


def network_batches(folder: Path, device: torch.device, steps: int, small: bool) -> dict[str, list[Batch]]:
    """What the head of a RetinaNet R-50 gives its loss, before its first step and after so many.

    Sixteen images of 512×512 a batch, 63 million logits; one of the batches is without objects. The images are
    generated in `folder` where they are missing; `small` is a network for tests on a CPU.
    """
    splits = make_coco_like(folder / "data", {"train": 64, "few": 16})
    batch_size, own = (2, SMALL) if small else (16, [])
    settings = [f"data.root={folder}/data", f"data.train_split={splits['train']}", f"data.val_split={splits['few']}"]
    settings += ["model.norm=group", "model.head_norm=group", "model.frozen_stages=0", "model.weights=null", *own]
    settings += [f"data.batch_size={batch_size}", f"optimizer.base_batch_size={batch_size}", "data.workers=0"]
    settings += [f"optimizer.lr={LEARNING_RATE}", "optimizer.clip_grad_norm=10.0", "schedule.warmup_steps=20"]
    config = load_config(ROOT / "configs/r50_alrp.yaml", settings)
    dataset = training_set(config)
    step = TrainStep(config, Processes(0, 1, device), build_schedule(config, len(dataset)), 80, load_weights=False)
    loader = iter(train_loader(dataset, batch_size))
    images = [next(loader) for _ in range(len(SHARES) - 1)]
    shown = [*images[:2], blank_batch(batch_size, config.data.train_size), *images[2:]]
    first = [_given_to_the_loss(step, each) for each in shown]
    for number in range(steps):
        step([images[number % len(images)]])
    return {"first step": first, f"after {steps} steps": [_given_to_the_loss(step, each) for each in shown]}


def _given_to_the_loss(step: TrainStep, batch: MicroBatch) -> Batch:
    """The input of the loss in a step that updates nothing."""
    (loss,) = (module for module in step.detector.modules() if isinstance(module, Loss))
    of_matched, seen = loss.of_matched, []

    def look(matched: Matched, group: object = None) -> dict[str, Tensor]:
        seen.append(matched)
        return of_matched(matched)

    loss.of_matched = look  # type: ignore[method-assign]
    step.forward_backward([batch])
    loss.of_matched = of_matched  # type: ignore[method-assign]
    step.optimizer.zero_grad()
    matched = seen[0]
    errors = localisation_errors(matched.overlaps("giou"), "giou")
    return Batch(matched.logits.detach().clone(), matched.targets, matched.entries, errors.detach())
