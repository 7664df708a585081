"""Gradient buckets of DistributedDataParallel, settled before the first step."""

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


def settle_buckets(model: nn.Module) -> None:
    """Lets DistributedDataParallel choose its buckets now, and the same ones in every start of a run.

    It rebuilds them once in a process's life, by the order in which its first backward pass makes the gradients ready.
    Where a gradient lies in its bucket decides in which order three or more processes add it up; so a resumed run's
    first step rounds otherwise than the same step of a run that went on. Here that first backward pass is one of zeros
    through the parameters alone, from the last defined to the first, the order in which a network makes them ready.
    It leaves gradients of zero, and no trace in weights, buffers, random numbers or data.

    Does nothing for a model that is not wrapped.
    """
    if not isinstance(model, DistributedDataParallel):
        return
    network = model.module

    def touch_parameters() -> Tensor:
        parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        return torch.stack([parameter.sum() * 0 for parameter in parameters]).sum()

    network.forward = touch_parameters
    try:
        model().backward()
    finally:
        del network.forward  # the class has its own
