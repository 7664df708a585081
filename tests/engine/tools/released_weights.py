"""Weights that anybody can rebuild, for the names and shapes of the authors' checkpoints."""

import json
import zlib
from pathlib import Path

import torch
from torch import Tensor


def rebuilt_checkpoint(file: Path) -> dict[str, Tensor]:
    """The state dict whose names and shapes are in that file, by the recipe of the golden networks."""
    return {name: _rebuilt(name, shape) for name, shape in json.loads(file.read_text()).items()}


def _rebuilt(name: str, shape: list[int]) -> Tensor:
    if name.endswith("num_batches_tracked"):
        return torch.tensor(0)
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    if name.endswith("running_var"):
        return 0.5 + torch.rand(shape, generator=generator)
    value = torch.randn(shape, generator=generator)
    if len(shape) == 1:
        value = 0.1 * value
        if name.endswith(".weight"):
            value = 1 + value
    else:
        value = value / value[0].numel() ** 0.5
    if name.endswith("bn3.weight"):
        value = value * 0.3
    if name == "bbox_head.retina_cls.bias":
        value = value - 3
    if name == "bbox_head.retina_reg.weight":
        value = value * 0.2
    return value
