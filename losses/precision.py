"""The precision that losses and boxes are computed in, whatever the network's is."""

import torch
from torch import Tensor

LARGEST = 1e300  # of a number that is given; twice that is finite still


def at_least_float32(values: Tensor) -> Tensor:
    """Values of half the digits in float32; float32 and float64 as they are."""
    return values if values.dtype == torch.float64 else values.float()
