"""A detector small enough to run in a few milliseconds, and its targets."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from detector import build_detector
from detector.retinanet.retinanet import RetinaNet


@pytest.fixture
def make_detector() -> Callable[..., RetinaNet]:
    def make(num_classes: int = 3, loss: dict | None = None, data: dict | None = None, **model) -> RetinaNet:
        small = {"backbone": "resnet18", "weights": None, "norm": "group", "frozen_stages": 0}
        small |= {"fpn_channels": 32, "head_convs": 1}
        torch.manual_seed(0)
        return build_detector({"model": small | model, "loss": loss or {}, "data": data or {}}, num_classes)

    return make


@pytest.fixture
def make_target() -> Callable[..., dict[str, Tensor]]:
    def make(*boxes: tuple[float, float, float, float], labels=(), crowd=()) -> dict[str, Tensor]:
        return {
            "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            "labels": torch.tensor(labels or [0] * len(boxes), dtype=torch.int64),
            "crowd": torch.tensor(crowd or [False] * len(boxes), dtype=torch.bool),
        }

    return make
