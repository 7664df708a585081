"""Whether the losses' Triton kernels can take over from PyTorch's operators."""

import warnings
from functools import cache

import torch
from torch import Tensor


def usable(logits: Tensor) -> bool:
    """Whether kernels can run on the logits: on a GPU where Triton works, unless repeatable results were asked for.

    The kernels add float64 numbers in the order in which the GPU gets to them.
    """
    if not logits.is_cuda or torch.are_deterministic_algorithms_enabled():
        return False
    return triton_works(logits.device) and _ranking_works(logits.device)


def as_losses_read(logits: Tensor) -> Tensor:
    """The logits in a type that operators can compute with, float32 at least; kernels read all types as they are."""
    return logits if logits.element_size() >= 4 or usable(logits) else logits.float()


@cache
def triton_works(device: torch.device) -> bool:
    """Tries: Triton may be missing, find no C compiler for its launcher, or not know the GPU."""
    try:
        from .ranking.triton_passes import TritonPasses

        TritonPasses().find_entries(torch.ones(1, device=device))
    except Exception as error:
        return _warn(error)
    return True


@cache
def _ranking_works(device: torch.device) -> bool:
    """Tries to rank one positive: its kernels ask more of Triton than others."""
    try:
        from .ranking.triton_passes import TritonPasses

        passes, logits = TritonPasses(), torch.ones(1, device=device)
        logit, weight = passes.positives(logits, passes.find_entries(logits), None)
        passes.make_bins(logit, weight, 1.0, torch.float32, logits)
        passes.rank(passes.histogram(logits, logits), weight)
    except Exception as error:
        return _warn(error)
    return True


def _warn(error: Exception) -> bool:
    reason = str(error).strip().split("\n")[0]
    warnings.warn(f"Triton does not work here, slower operators take its place: {reason}", stacklevel=3)
    return False
