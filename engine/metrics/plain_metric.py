"""The part of torchmetrics.Metric that OptimalLRP uses, for environments without torchmetrics."""

from collections.abc import Callable
from functools import wraps
from inspect import unwrap
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class Metric(nn.Module):
    """States that are lists of tensors, joined over the processes where a process group is initialised.

    `compute` joins them, remembers its value until the next `update` or `reset`, and leaves every process its own
    part. After `sync`, `compute` uses the joined states, and `update` and another `sync` raise until `unsync`. Calling
    the metric updates it and returns the value of that batch alone.

    Args:
        process_group: whose processes share their states; None for all.
    """

    def __init__(self, process_group: "dist.ProcessGroup | None" = None) -> None:
        super().__init__()
        self.process_group = process_group
        self._states: list[str] = []
        self._own: dict[str, list[Tensor]] | None = None  # this process's part while the states are joined
        self._computed: Any = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, wrap in (("update", _forgetting), ("compute", _joining)):
            if name in vars(cls):
                setattr(cls, name, wrap(vars(cls)[name]))

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def add_state(self, name: str, default: list[Tensor], dist_reduce_fx: str) -> None:
        """A state that begins as the empty list; "cat", the only reduction, joins the parts in the order of ranks."""
        self._states.append(name)
        setattr(self, name, default)

    def update(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError

    def compute(self) -> Any:
        raise NotImplementedError

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        self.update(*args, **kwargs)
        seen = {name: getattr(self, name) for name in self._states}
        self.reset()
        self.update(*args, **kwargs)
        try:
            return unwrap(type(self).compute)(self)  # of this process alone
        finally:
            self._restore(seen)

    def reset(self) -> None:
        self._own = self._computed = None
        for name in self._states:
            setattr(self, name, [])

    def sync(self, process_group: "dist.ProcessGroup | None" = None) -> None:
        """Joins the states of all processes on each; without a process group nothing happens."""
        if self._own is not None:
            raise RuntimeError("the metric is synced already; call unsync() first")
        if not (dist.is_available() and dist.is_initialized()):
            return
        own = {name: getattr(self, name) for name in self._states}
        group = process_group or self.process_group
        parts: list[Any] = [None] * dist.get_world_size(group)
        dist.all_gather_object(parts, own, group)
        for name in self._states:
            setattr(self, name, [tensor for part in parts for tensor in part[name]])
        self._own = own

    def unsync(self) -> None:
        if self._own is None:
            raise RuntimeError("the metric is not synced")
        self._restore(self._own)

    def _restore(self, states: dict[str, list[Tensor]]) -> None:
        self._own = self._computed = None
        for name, tensors in states.items():
            setattr(self, name, tensors)


def _forgetting(update: Callable[..., None]) -> Callable[..., None]:
    """`update` that makes the computed value invalid and refuses joined states."""

    @wraps(update)
    def call(self: Metric, *args: Any, **kwargs: Any) -> None:
        if self._own is not None:
            raise RuntimeError("the metric is synced; call unsync() before update()")
        self._computed = None
        update(self, *args, **kwargs)

    return call


def _joining(compute: Callable[[Metric], Any]) -> Callable[[Metric], Any]:
    """`compute` on the states of all processes, whose value is remembered."""

    @wraps(compute)
    def call(self: Metric) -> Any:
        if self._computed is None:
            was_synced = self._own is not None
            if not was_synced:
                self.sync()
            try:
                value = compute(self)
            finally:
                if self._own is not None and not was_synced:
                    self.unsync()
            self._computed = value
        return self._computed

    return call
