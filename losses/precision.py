"""The precision that losses and boxes are computed in, whatever the network's is."""

import torch
from torch import Tensor


def at_least_float32(values: Tensor) -> Tensor:
    """Values of half the digits in float32; float32 and float64 as they are."""
    return values if values.dtype == torch.float64 else values.float()
