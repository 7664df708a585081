"""Whether the losses' Triton kernels can take over from PyTorch's operators."""

import warnings
from functools import cache

import torch
from torch import Tensor


def usable(logits: Tensor) -> bool:
    """Whether kernels can run on the logits: on a GPU where Triton works, unless repeatable results were asked for.

    The kernels add float64 numbers in the order in which the GPU gets to them.
    """
    return logits.is_cuda and not torch.are_deterministic_algorithms_enabled() and triton_works(logits.device)


@cache
def triton_works(device: torch.device) -> bool:
    """Tries: Triton may be missing, find no C compiler for its launcher, or not know the GPU."""
    try:
        from .ranking.triton_passes import TritonPasses

        TritonPasses().find_entries(torch.ones(1, device=device))
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        warnings.warn(f"Triton does not work here, slower operators take its place: {reason}", stacklevel=2)
        return False
    return True
