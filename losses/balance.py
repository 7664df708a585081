"""Self-balancing of the two parts of aLRP Loss (arXiv 2009.13592, Sec. 4)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class SelfBalance(nn.Module):
    """Weight w of the localisation part: total = classification + w * localisation.

    After every epoch w = (mean classification + mean localisation) / mean localisation over that epoch's steps; where
    an epoch is a large part of the training, better after fewer steps (docs/ablation.md).
    Weight and sums are buffers, so a checkpoint holds them and a run that is resumed within an epoch forgets
    nothing. There is no collective here: record values that are the same on every process.

    Args:
        initial: w until the first update (released code: 50).
        every: steps between two updates; None for an epoch.
    """

    weight: Tensor
    cls_sum: Tensor
    loc_sum: Tensor
    steps: Tensor

    def __init__(self, initial: float = 50.0, every: int | None = None) -> None:
        super().__init__()
        self.every = every
        self.register_buffer("weight", torch.tensor(initial, dtype=torch.float64))
        self.register_buffer("cls_sum", torch.zeros((), dtype=torch.float64))
        self.register_buffer("loc_sum", torch.zeros((), dtype=torch.float64))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))  # recorded since the last update
        self.register_load_state_dict_pre_hook(_add_steps)
        self.register_load_state_dict_post_hook(_in_float64)

    @torch.no_grad()
    def step(self, loss_cls: Tensor, loss_loc: Tensor) -> None:
        """Records one step, and updates after every `every` of them; for loops that do not call `after_step`.

        Without `every`, call `update` after each epoch. Parts that are not finite count as 0. Waits for no device.

        Args:
            loss_cls, loss_loc: unweighted parts of the step, scalars that are the same on every process.
        """
        if self.weight.device != loss_cls.device:  # training loops move their model, and may leave the criterion
            self.to(loss_cls.device)
        finite = torch.isfinite(loss_cls) & torch.isfinite(loss_loc)
        self.record(torch.where(finite, loss_cls, 0), torch.where(finite, loss_loc, 0))
        if self.every is not None:
            self._update(self.steps >= self.every)

    def after_step(self, parts: tuple[float, float] | None, step: int, steps_per_epoch: int) -> None:
        """To be called after every optimizer step.

        Args:
            parts: the step's unweighted classification and localisation part, averaged over the processes; None for
                a step that did not count.
            step: steps done, this one included.
        """
        if parts is not None:
            self.record(*parts)
        if step % (self.every or steps_per_epoch) == 0:
            self.update()

    @torch.no_grad()
    def record(self, loss_cls: Tensor | float, loss_loc: Tensor | float) -> None:
        """Adds one step's unweighted parts, scalars averaged over the processes. Waits for no device."""
        self.cls_sum += loss_cls
        self.loc_sum += loss_loc
        self.steps += 1

    @torch.no_grad()
    def update(self) -> None:
        """Sets the weight from the steps recorded since the last update.

        The weight stays where nothing was recorded or the mean localisation is not a positive number.
        """
        self._update(torch.ones_like(self.steps, dtype=torch.bool))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "SelfBalance":
        """Moves as its module does, but stays float64: sums of bfloat16 would stop growing."""
        before = dict(self.named_buffers())
        super()._apply(fn, recurse)
        for name, buffer in self.named_buffers():
            if buffer.dtype != before[name].dtype:
                setattr(self, name, before[name].to(buffer.device))
        return self

    def _update(self, due: Tensor) -> None:
        weight = (self.cls_sum + self.loc_sum) / self.loc_sum
        usable = due & (self.loc_sum > 0) & torch.isfinite(weight)
        self.weight.copy_(torch.where(usable, weight, self.weight))
        for recorded in (self.cls_sum, self.loc_sum, self.steps):
            recorded.masked_fill_(due, 0)


def _add_steps(balance: SelfBalance, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Checkpoints of format 1 hold no number of steps."""
    state.setdefault(f"{prefix}steps", torch.zeros_like(balance.steps))


def _in_float64(balance: SelfBalance, _: Any) -> None:
    """A state that was cast comes back in its own type where it is assigned: sums of float16 would stop growing."""
    for name in ("weight", "cls_sum", "loc_sum"):
        setattr(balance, name, getattr(balance, name).double())
