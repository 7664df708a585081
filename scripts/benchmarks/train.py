"""A training step: images and objects to updated weights, torchvision's RetinaNet against ours."""

import gc
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.models import make_batch, make_models
from benchmarks.timing import interleave
from detector import Detector
from detector.backbones.winograd import use_winograd
from engine.run.precision import autocast
from engine.training.network_graphs import capture_network

REPETITIONS = 5
LOSSES = {"focal": "focal", "aLRP": "alrp"}


def benchmark_train(size: tuple[int, int], batch_size: int, device: torch.device) -> list[dict]:
    """Rows of the table, in float32 and in bfloat16 autocast: torchvision's step and ours with each loss, in turn.

    Only two models exist at a time: the memory of CUDA graphs stays while they do.
    """
    images, targets = make_batch(batch_size, size, device)
    peer_inputs = list(images), [{"boxes": each["boxes"], "labels": each["labels"] + 1} for each in targets]
    own_images = images.contiguous(memory_format=torch.channels_last)
    rows = []
    for precision in ("float32", "bfloat16"):
        for name, loss in LOSSES.items():
            peer = own = steps = None
            gc.collect()  # a detector with graphs is in a cycle
            peer, own = make_models(size, loss, device)
            speed_up(own, own_images, precision)
            steps = {
                "torchvision, focal": make_step(peer.train(), peer_inputs, fused=False),
                f"ours, {name}": make_step(own.train(), (own_images, targets), fused=True),
            }
            seconds = interleave({step: partial(run, precision) for step, run in steps.items()}, REPETITIONS)
            for step, value in seconds.items():
                row = {"precision": precision, "step": step, "ms": 1e3 * value}
                rows.append(row | {"ratio": value / seconds["torchvision, focal"], "images/s": batch_size / value})
    return rows


def speed_up(detector: Detector, images: Tensor, precision: str, compiled: bool = False) -> None:
    """What training does to a network whose batches have one size."""
    use_winograd(detector, training=True, evaluation=False)
    if images.is_cuda:
        capture_network(detector.train(), images, precision, compiled)
    elif compiled:
        detector.compile_network()


def make_step(model: nn.Module, inputs: tuple, fused: bool) -> Callable[[str], None]:
    """One optimizer step in the given precision; the loss is torchvision's sum or our "loss"."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=1e-6, momentum=0.9, weight_decay=1e-4, fused=fused or None)
    device = parameters[0].device

    def step(precision: str) -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(precision, device):
            losses = model(*inputs)
            loss = losses["loss"] if "loss" in losses else sum(losses.values())
        loss.backward()
        optimizer.step()

    return step
