"""Normalising a sum by the number of positives of all processes."""

import torch
import torch.distributed as dist
from torch import Tensor


def mean_over_positives(total: Tensor, num_positives: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """total / max(1, num_positives), both summed over the group, in one collective.

    Args:
        total: scalar, this process's sum.
        num_positives: integer scalar, this process's count.
        group: None for this process alone.
    Returns:
        scalar, the same on every process; its gradient is that of this process's total, unscaled.
    """
    if group is None:
        return total / num_positives.clamp(min=1)
    joined = _SumOverGroup.apply(torch.stack([total.double(), num_positives.double()]), group)
    return (joined[0] / joined[1].clamp(min=1)).to(total.dtype)


class _SumOverGroup(torch.autograd.Function):
    """Sum over the processes; the gradient stays with each process's own summand."""

    @staticmethod
    def forward(ctx, own: Tensor, group: dist.ProcessGroup) -> Tensor:
        joined = own.clone()
        dist.all_reduce(joined, group=group)
        return joined

    @staticmethod
    def backward(ctx, grad_output: Tensor) -> tuple[Tensor, None]:
        return grad_output, None
