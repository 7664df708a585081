"""What a step leaves in a model's buffers: the statistics of one that counts, and nothing of one that does not."""

import pytest
import torch
from torch import nn

from data import train_loader
from engine.run.config import load_config
from engine.run.datasets import training_set
from engine.run.distributed import Processes
from engine.run.schedule import build_schedule
from engine.training.step_buffers import StepBuffers
from engine.training.train_step import TrainStep

ALONE = Processes(0, 1, torch.device("cpu"))


@pytest.mark.parametrize("norm", ["batch", "sync_batch"])
def test_a_skipped_step_leaves_every_buffer_as_it_was(config_file, norm):
    config = load_config(config_file, [f"model.norm={norm}", "optimizer.ema_decay=0.5", "data.accumulate=2"])
    dataset = training_set(config)
    batches = iter(train_loader(dataset, 4, accumulate=2))
    step = TrainStep(config, ALONE, build_schedule(config, len(dataset)), len(dataset.class_names), load_weights=True)
    step([next(batches), next(batches)])
    models = (step.detector, step.ema.module)
    before = [[buffer.clone() for buffer in model.buffers()] for model in models]
    weight = step.detector.backbone.conv1.weight
    usual = weight.detach().clone()
    weight.data.mul_(3e38)  # the forward pass overflows
    stats, _ = step([next(batches), next(batches)])
    weight.data.copy_(usual)
    assert stats["skipped_steps"] == 1
    for model, buffers in zip(models, before, strict=True):
        for (name, buffer), old in zip(model.named_buffers(), buffers, strict=True):
            assert torch.equal(buffer, old), name
    step([next(batches), next(batches)])
    assert step.detector.backbone.bn1.num_batches_tracked == 4


@pytest.fixture
def norm():
    """BatchNorm in training that has seen one batch."""
    module = nn.BatchNorm2d(2)
    module(torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(0)))
    return module


def test_a_step_that_counts_keeps_its_statistics(norm):
    buffers = StepBuffers(norm)
    buffers.keep()
    norm(torch.full((4, 2, 3, 3), 7.0))
    buffers.settle(counts=True)
    assert norm.num_batches_tracked == 2
    assert (norm.running_mean > 0.5).all()


def test_statistics_that_overflow_are_undone_though_the_step_counts(norm):
    buffers, mean = StepBuffers(norm), norm.running_mean.clone()
    buffers.keep()
    output = norm(1e25 * torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(1)))
    assert output.isfinite().all()  # so that nothing else notices
    assert norm.running_var.isinf().any()
    buffers.settle(counts=True)
    assert norm.running_var.isfinite().all()
    assert torch.equal(norm.running_mean, mean)
