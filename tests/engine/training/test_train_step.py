"""engine/training/train_step.py: what one optimizer step is made of."""

import pytest
import torch
from in_process import ALONE

from data import train_loader
from engine import load_config
from engine.run.datasets import training_set
from engine.run.schedule import build_schedule
from engine.training.train_step import TrainStep


@pytest.fixture
def make_step(config_file):
    """make(*overrides) -> a step that was never taken, and batches for it."""

    def make(*overrides):
        config = load_config(config_file, overrides)
        dataset = training_set(config)
        step = TrainStep(config, ALONE, build_schedule(config, len(dataset)), len(dataset.class_names), False)
        return step, train_loader(dataset, config.data.batch_size, accumulate=config.data.accumulate)

    return make


def test_the_gradient_of_a_step_is_the_mean_of_its_micro_batches(make_step):
    step, loader = make_step("data.accumulate=2")
    first, second = (batch for batch, _ in zip(loader, range(2), strict=False))
    gradients = []
    for micro_batches in ([first], [second], [first, second]):
        step.optimizer.zero_grad()
        step.forward_backward(micro_batches)
        gradients.append([parameter.grad.clone() for parameter in step.parameters])
    for one, other, together in zip(*gradients, strict=True):
        torch.testing.assert_close(together, one + other, rtol=1e-3, atol=1e-6)
    plain, _ = make_step()
    plain.forward_backward([first])
    for parameter, half in zip(plain.parameters, gradients[0], strict=True):
        torch.testing.assert_close(parameter.grad, 2 * half, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("clip", [0.01, 1e9])
def test_the_optimizer_gets_the_rate_of_the_step_and_a_gradient_of_at_most_the_configured_norm(make_step, clip):
    step, loader = make_step(f"optimizer.clip_grad_norm={clip}")  # lr 0.01, two steps of warm-up from 1e-3 of it
    norms, rates, before_clipping = [], [], []

    def look(optimizer, *_):
        norms.append(torch.nn.utils.get_total_norm([p.grad for p in step.parameters]).item())
        rates.append(optimizer.param_groups[0]["lr"])

    step.optimizer.register_step_pre_hook(look)
    for batch, _ in zip(loader, range(2), strict=False):
        before_clipping.append(step([batch])[0]["grad_norm"])
    assert min(before_clipping) > 0.01
    assert norms == pytest.approx([0.01] * 2 if clip == 0.01 else before_clipping, rel=1e-3)
    assert rates == pytest.approx([0.01 * 0.001, 0.01 * (0.001 + 0.999 / 2)])


@pytest.mark.parametrize("clip", [0.01, None])
def test_the_update_ratio_is_the_length_of_the_step_by_that_of_the_weights(make_step, clip):
    plain = ["optimizer.weight_decay=0", "schedule.warmup_steps=0", "run.log_every=1", "run.diagnose=true"]
    step, loader = make_step(*plain, f"optimizer.clip_grad_norm={'null' if clip is None else clip}")
    before = [weight.detach().clone() for weight in step.parameters]
    ratio = step([next(iter(loader))])[0]["update_ratio"]
    moved = [weight.detach() - old for weight, old in zip(step.parameters, before, strict=True)]
    lengths = [torch.nn.utils.get_total_norm(tensors).item() for tensors in (moved, before)]
    assert ratio == pytest.approx(lengths[0] / lengths[1], rel=1e-3)


def test_the_average_follows_the_weights_after_each_step(make_step):
    step, loader = make_step("optimizer.ema_decay=0.9", "optimizer.lr=0.1", "schedule.warmup_steps=0")
    weights = list(step.detector.parameters())
    average = [weight.detach().clone() for weight in weights]
    for done, (batch, _) in enumerate(zip(loader, range(2), strict=False)):
        step([batch])
        decay = (1 + done) / (10 + done)  # below 0.9 still
        for mean, weight in zip(average, weights, strict=True):
            mean.lerp_(weight.detach(), 1 - decay)
    for mean, found in zip(average, step.ema.module.parameters(), strict=True):
        torch.testing.assert_close(found, mean, rtol=1e-5, atol=1e-7)
    assert max((mean - weight).abs().max() for mean, weight in zip(average, weights, strict=True)) > 1e-4


def test_every_nth_step_is_watched(make_step):
    step, loader = make_step("run.log_every=2")
    watched = ["num_positives" in step([batch])[0] for batch, _ in zip(loader, range(4), strict=False)]
    assert watched == [False, True, False, True][: len(watched)] and len(watched) > 1
