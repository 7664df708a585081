"""Ranking losses as modules for any training loop: their own settings, group and self-balance.

B positions of any leading shape (images × anchors, or queries), K classes, P positives of this process.
"""

from difflib import get_close_matches
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor

from .flat import Flat, flatten
from .loss import Loss, LossSettings

Group = Literal["world"] | dist.ProcessGroup | None


class RankingLoss(Loss):
    """Loss that ranks, called with logits and targets.

    `forward` returns two scalars to be added, the classification and the weighted localisation part, and in training
    mode, with gradients enabled, records them in `balance`. Within torch.compile it breaks the graph once: shapes here
    depend on the number of positives, so that every size of it would be compiled anew.

    Args:
        settings: of the class `Settings`; or
        keys: its settings by name.
        group: processes over whose batches the loss ranks: None for this process alone, "world" for all, if
            torch.distributed is initialised when the loss is called, or a process group. Every process must then call
            the loss equally often. The values are those of the joined batch, the same on every process, and the
            gradients are scaled by the number of processes: right as they are where DistributedDataParallel, or FSDP,
            averages them.
    Raises:
        TypeError: an unknown setting, one of another type, settings given twice, or something else in their place.
        ValueError: a setting out of its range, or another group.
    """

    def __init__(self, settings: LossSettings | None = None, *, group: Group = None, **keys: Any) -> None:
        if settings is not None and keys:
            raise TypeError(f"give settings or their keys ({', '.join(keys)}), not both")
        if "ranking" in keys:
            raise TypeError('ranking is a key of configurations; here the group says it: None, or "world" for all')
        names = self.Settings.names_in_code()
        for key in keys.keys() - {*names, "name"}:
            nearest = get_close_matches(key, names, n=1, cutoff=0)[0]
            raise TypeError(f"no setting is called {key!r}; the nearest is {nearest!r}, of {', '.join(names)}")
        if not (group is None or group == "world" or isinstance(group, dist.ProcessGroup)):
            raise ValueError(f'group must be "world", a process group or None, got {group!r}')
        super().__init__(self.Settings(**keys) if settings is None else settings)
        self.group = group

    def extra_repr(self) -> str:
        return super().extra_repr() + ("" if self.group is None else f", group={self.group!r}")

    def _flat(self, logits: Tensor, targets: Tensor) -> tuple[Flat, dist.ProcessGroup | None]:
        """Flat logits and targets, and the group as it is now."""
        group = self.group
        if group == "world":
            group = dist.group.WORLD if dist.is_available() and dist.is_initialized() else None
        return flatten(logits, targets), group

    def _result(
        self, loss_cls: Tensor, loss_loc: Tensor, loc_weight: Tensor | float, group: dist.ProcessGroup | None
    ) -> tuple[Tensor, Tensor]:
        """What `forward` returns of the unweighted parts; records them."""
        if self.balance is not None and self.training and torch.is_grad_enabled():
            self.balance.step(loss_cls.detach(), loss_loc.detach())
        loss_loc = (loc_weight * loss_loc).to(loss_cls.dtype)
        processes = 1 if group is None else dist.get_world_size(group)
        return scale_gradient(loss_cls, processes), scale_gradient(loss_loc, processes)


def scale_gradient(value: Tensor, factor: int) -> Tensor:
    """The same value, with `factor` times the gradient."""
    return value + (factor - 1) * (value - value.detach())
