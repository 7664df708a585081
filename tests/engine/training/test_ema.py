"""The weight average, by hand."""

import pytest
import torch
from torch import nn

from engine.training.ema import WeightEMA


def test_average_ramps_up_to_its_decay_and_copies_buffers():
    model = nn.BatchNorm1d(1)
    ema = WeightEMA(model, decay=0.5)
    with torch.no_grad():
        model.weight.fill_(2.0)  # was 1
        model.running_mean.fill_(7.0)
    ema.update(model, step=0)  # d = min(0.5, 1 / 10): 0.1 · 1 + 0.9 · 2
    assert ema.module.weight.item() == pytest.approx(1.9)
    assert ema.module.running_mean.item() == 7
    ema.update(model, step=100)  # d = 0.5: 0.5 · 1.9 + 0.5 · 2
    assert ema.module.weight.item() == pytest.approx(1.95)
    assert not ema.module.training
    assert not ema.module.weight.requires_grad
