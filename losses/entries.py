"""The entries of a batch as flat vectors, and the indices of the few that stand out among them."""

import torch
from torch import Tensor


def require_flat(logits: Tensor, targets: Tensor) -> None:
    """Raises ValueError unless logits and targets both have shape (M,), and logits are floats."""
    require_float(logits)
    if logits.dim() != 1 or targets.shape != logits.shape:
        shapes = f"{tuple(logits.shape)} and {tuple(targets.shape)}"
        raise ValueError(f"logits and targets must both have shape (M,), got {shapes}")


def require_float(logits: Tensor) -> None:
    """Raises ValueError unless logits are floats: targets in their place would give a loss of 0, without a word."""
    if not logits.is_floating_point():
        raise ValueError(f"logits must be floats, got {logits.dtype}; are logits and targets exchanged?")


def positive_entries(targets: Tensor) -> Tensor:
    """Indices (P,) int64 of the targets (M,), any dtype, that are 1, ascending; waits for a GPU."""
    if targets.device.type != "cpu":
        return true_indices(targets == 1)
    # On a CPU a comparison takes ten times as long as a conversion, so compare only what is not 0.
    labelled = true_indices(targets.bool())
    return labelled[targets[labelled] == 1]


def true_indices(mask: Tensor) -> Tensor:
    """Indices (n,) int64 of the True entries of a mask (M,), ascending; fast on a CPU where few are."""
    if mask.device.type != "cpu":
        return mask.nonzero().squeeze(1)
    if len(mask) % 8:
        mask = torch.nn.functional.pad(mask, (0, -len(mask) % 8))
    elif mask.stride(0) != 1 or mask.storage_offset() % 8:  # a column of a matrix, or a slice
        mask = mask.clone(memory_format=torch.contiguous_format)
    words = mask.view(torch.int64)  # eight entries at a time
    found = words.nonzero().squeeze(1)
    within = words[found].view(torch.bool).nonzero().squeeze(1)  # among the eight times `found` entries
    return (8 * found)[within >> 3] + (within & 7)
