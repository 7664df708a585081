"""The optimizer of a run, and its state out of a checkpoint."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from engine.run.groups import OptimizerConfig


def build_optimizer(parameters: Iterable[nn.Parameter], config: OptimizerConfig, lr: float) -> torch.optim.Optimizer:
    """The optimizer that `optimizer.name` says, of one group of parameters, with the rate `lr`."""
    if config.name == "sgd":
        return torch.optim.SGD(
            parameters, lr=lr, momentum=config.momentum, weight_decay=config.weight_decay, fused=True
        )
    kind = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
    betas = (config.momentum, config.beta2)
    return kind(parameters, lr=lr, betas=betas, weight_decay=config.weight_decay, fused=True)


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Loads the state of the parameters and the rate of the last step; other settings stay those of the configuration.

    Raises:
        ValueError: it does not fit; `Optimizer.load_state_dict` alone would see only a part of that.
    """
    kept = ("params", "lr")  # a checkpoint written before the next step must hold the rate that this one held
    settings = [{name: value for name, value in old.items() if name not in kept} for old in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for param_group, own in zip(optimizer.param_groups, settings, strict=True):
        param_group.update(own)
        if not isinstance(param_group["lr"], float):
            raise ValueError("the optimizer's lr is no number")
        for parameter in param_group["params"]:
            for name, value in optimizer.state[parameter].items():
                if value is not None and getattr(value, "shape", None) not in ((), parameter.shape):
                    raise ValueError(f"the optimizer's {name} does not fit its parameter")
