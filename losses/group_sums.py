"""Normalising a sum by what all processes count or weigh."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def require_group(group: object) -> None:
    """Raises ValueError unless it is a process group or None."""
    if not (group is None or isinstance(group, dist.ProcessGroup)):
        raise ValueError(
            f"group must be a process group or None, got {group!r}; torch.distributed.group.WORLD has all processes"
        )


def ratio_over_group(total: Tensor, weight: Tensor, group: dist.ProcessGroup | None, at_least: float = 1.0) -> Tensor:
    """total / max(at_least, weight), both summed over the group, in one collective.

    Args:
        total: scalar, this process's sum.
        weight: scalar without gradient, such as this process's number of positives.
        group: None for this process alone.
        at_least: smallest divisor, > 0.
    Returns:
        scalar, the same on every process; its gradient is that of this process's total, unscaled.
    """
    if group is None:
        return total / weight.clamp(min=at_least)
    joined = sum_over_group(torch.stack([total.double(), weight.double()]), group)
    return (joined[0] / joined[1].clamp(min=at_least)).to(total.dtype)


def sum_over_group(own: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """Sum over the processes, the same on each; its gradient is that of this process's own summand, unscaled.

    Raises ValueError as `require_group`.
    """
    require_group(group)
    return own if group is None else _SumOverGroup.apply(own, group)


class _SumOverGroup(torch.autograd.Function):
    """Sum over the processes; the gradient stays with each process's own summand."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, group: dist.ProcessGroup) -> Tensor:
        joined = own.clone()
        dist.all_reduce(joined, group=group)
        return joined

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None]:
        return grad_output, None
