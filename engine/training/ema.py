"""Exponential moving average of the training weights."""

import copy

import torch
from torch import Tensor, nn

from engine.training.step_buffers import changing_buffers


class WeightEMA:
    """Average model: ema ← d·ema + (1 - d)·weights after each step, buffers copied but for those of frozen BatchNorm.

    d ramps as min(decay, (1 + n) / (10 + n)) with n optimizer steps before, skipped ones included, so that short runs
    do not keep their random start.

    Args:
        model: the unwrapped training model, whose buffers must be written in place; a copy of it becomes `module`, in
            eval mode, without gradients.
        decay: in (0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self._buffers = list(zip(changing_buffers(self.module), changing_buffers(model), strict=True))

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Called after 0-based optimizer step `step`."""
        decay = min(self.decay, (1 + step) / (10 + step))
        averages: list[Tensor] = list(self.module.parameters())
        torch._foreach_lerp_(averages, [weight.detach() for weight in model.parameters()], 1 - decay)
        for copies, live in self._buffers:
            torch._foreach_copy_(copies, live)
