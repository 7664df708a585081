"""A small Faster R-CNN, and what each process of test_faster_rcnn_processes.py does with it: spawned ones import it."""

from pathlib import Path

import torch
import torch.distributed as dist

from detector import build_detector

NUM_CLASSES = 3
SMALL = {
    "family": "faster_rcnn",
    "backbone": "resnet18",
    "weights": None,
    "norm": "group",
    "frozen_stages": 0,
    "fpn_channels": 32,
    "fc_channels": 16,
    "anchor_base_scale": 4.0,
}
# every process draws samples of its own, so that of ce only all boxes are those of the joined batch
EVERY = {"rpn_samples": None, "roi_samples": None}
FORMS = {
    "ce": (EVERY, {"name": "ce"}),
    "alrp": ({}, {"name": "alrp"}),
    "rs": ({}, {"name": "rs"}),
}


def losses_and_gradients(form: str, images: slice, group: dist.ProcessGroup | None = None) -> dict[str, torch.Tensor]:
    """The losses of some of three images, the last of which has no object, and the gradients of all parameters."""
    model, loss = FORMS[form]
    torch.manual_seed(0)
    detector = build_detector({"model": SMALL | {"proposals": 40} | model, "loss": loss}, NUM_CLASSES).double()
    generator = torch.Generator().manual_seed(1)
    pixels = torch.rand(3, 3, 64, 96, generator=generator, dtype=torch.float64)
    targets = []
    for count in (2, 3, 0):
        corner, size = (torch.rand(count, 2, generator=generator) for _ in range(2))
        boxes = torch.cat([40 * corner, 40 * corner + 12 + 12 * size], dim=1)
        labels = torch.randint(0, NUM_CLASSES, (count,), generator=generator)
        targets.append({"boxes": boxes, "labels": labels, "crowd": torch.zeros(count, dtype=torch.bool)})
    losses = detector(pixels[images], targets[images], group=group)
    losses["loss"].backward()
    values = {name: value.detach() for name, value in losses.items()}
    return values | {f"d {name}": parameter.grad for name, parameter in detector.named_parameters()}


def work(rank: int, folder: str) -> None:
    """Process 0 has two images, process 1 the one without objects."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(f"{folder}/store", 2), rank=rank, world_size=2)
    images = slice(0, 2) if rank == 0 else slice(2, 3)
    found = {form: losses_and_gradients(form, images, dist.group.WORLD) for form in FORMS}
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()
