"""Every optimizer: its update, worked by hand, and runs that stop and go on as if they had not."""

import pytest
import torch
from torch import nn

from engine import load_config
from engine.run.checkpoint import load_checkpoint
from engine.run.config import ConfigError, parse_config
from engine.run.distributed import Processes
from engine.run.run_folder import RunFolder
from engine.training.optimizer import build_optimizer
from engine.training.trainer import Trainer

ADAM = ["optimizer.lr=0.001", "optimizer.beta2=0.99", "run.diagnose=true"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        # g = 4 + 0.1 · 2 = 4.2; w = 2 - 0.01 · 4.2
        ({"name": "sgd", "momentum": 0.5}, 2 - 0.042),
        # the first step's means are unbiased, so it is lr · g / |g|
        ({"name": "adam", "momentum": 0.5, "beta2": 0.9}, 2 - 0.01),
        # and decay apart from it takes 0.01 · 0.1 of the weight
        ({"name": "adamw", "momentum": 0.5, "beta2": 0.9}, 2 * (1 - 0.001) - 0.01),
    ],
)
def test_first_step_by_hand(values, expected):
    weight = nn.Parameter(torch.tensor([2.0]))
    config = parse_config({"optimizer": values | {"weight_decay": 0.1}}, "x").optimizer
    optimizer = build_optimizer([weight], config, lr=0.01)
    weight.grad = torch.tensor([4.0])
    optimizer.step()
    assert weight.item() == pytest.approx(expected, rel=1e-6)


def test_the_second_step_of_adam_has_both_betas():
    weight = nn.Parameter(torch.tensor([2.0]))
    config = parse_config({"optimizer": {"name": "adam", "momentum": 0.5, "beta2": 0.9, "weight_decay": 0.0}}, "x")
    optimizer = build_optimizer([weight], config.optimizer, lr=0.01)
    for gradient in (4.0, 1.0):
        weight.grad = torch.tensor([gradient])
        optimizer.step()
    # means 0.5 · 0.5 · 4 + 0.5 · 1 = 1.5 over 0.75, and 0.9 · 0.1 · 16 + 0.1 · 1 = 1.54 over 0.19
    assert weight.item() == pytest.approx(2 - 0.01 - 0.01 * 2 / (1.54 / 0.19) ** 0.5, rel=1e-6)


def train(config_file, *overrides, resume=None) -> RunFolder:
    config = load_config(config_file, [*ADAM, *overrides])
    folder = RunFolder(config)
    trainer = Trainer(config, Processes(0, 1, torch.device("cpu")), folder, folder.find_checkpoint(resume, False))
    assert trainer.fit() == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_a_stopped_run_goes_on_bit_for_bit(config_file, name):
    straight = train(config_file, f"optimizer.name={name}", "run.name=straight")
    train(config_file, f"optimizer.name={name}", "schedule.max_steps=4")
    resumed = train(config_file, f"optimizer.name={name}", resume="auto")
    one, other = load_checkpoint(straight.last), load_checkpoint(resumed.last)
    assert one["step"] == other["step"] == 6
    assert all(torch.equal(one["model"][key], value) for key, value in other["model"].items())
    for index, state in other["optimizer"]["state"].items():
        assert state.keys() == {"step", "exp_avg", "exp_avg_sq"} and state["step"] == 6
        assert all(torch.equal(one["optimizer"]["state"][index][key], value) for key, value in state.items())
    with pytest.raises(ConfigError, match=r"optimizer.name is 'sgd' now and was 'adam"):
        train(config_file, "optimizer.name=sgd", "optimizer.beta2=0.999", resume="auto")


def test_a_key_that_the_optimizer_does_not_have_is_refused():
    with pytest.raises(ConfigError, match=r"command line: optimizer.beta2: must be left out with name: sgd"):
        parse_config({}, "x", ["optimizer.beta2=0.9"])
    with pytest.raises(ConfigError, match=r"optimizer.name: Input should be 'sgd', 'adam' or 'adamw'"):
        parse_config({}, "x", ["optimizer.name=lion"])
