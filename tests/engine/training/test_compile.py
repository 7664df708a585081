"""run.compile: the network as one program, whatever the number of objects."""

import copy
import shutil
from functools import partialmethod

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from data.targets import BatchTargets
from engine import load_config
from engine.run.config import ConfigError
from engine.run.distributed import Processes
from engine.run.schedule import build_schedule
from engine.training.train_step import MicroBatch, TrainStep

ALONE = Processes(0, 1, torch.device("cpu"))


def make_step(config_file, *overrides) -> TrainStep:
    config = load_config(config_file, overrides)
    return TrainStep(config, ALONE, build_schedule(config, 12), 3, load_weights=False)


def batch(num_objects: int) -> MicroBatch:
    generator = torch.Generator().manual_seed(num_objects)
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=generator)
    boxes = torch.rand(num_objects, 2, generator=generator) * 30
    target = {"boxes": torch.cat([boxes, boxes + 20], 1), "labels": torch.zeros(num_objects, dtype=torch.int64)}
    target["crowd"] = torch.zeros(num_objects, dtype=torch.bool)
    return images, BatchTargets.join([target] * 2)


def test_without_a_compiler_it_is_refused(config_file, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match=r"run\.compile: .*C\+\+ compiler.*use false"):
        make_step(config_file, "run.compile=true")


INDUCTOR = pytest.param(
    "inductor",
    marks=[
        pytest.mark.slow,
        pytest.mark.timeout(1200),
        pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="no C++ compiler"),
    ],
)


@pytest.mark.parametrize("backend", ["aot_eager", INDUCTOR])  # the first traces all the same, and generates no code
def test_compiled_steps_are_the_plain_ones_whatever_the_number_of_objects(config_file, monkeypatch, backend):
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend=backend))
    if backend == "aot_eager":
        monkeypatch.setattr(shutil, "which", lambda name: name)
    torch._dynamo.reset()
    counters.clear()
    plain, compiled = make_step(config_file), make_step(config_file, "run.compile=true", "optimizer.ema_decay=0.9")
    graphs = []
    for num_objects in (1, 4, 0, 7):
        expected, _ = plain([batch(num_objects)])
        actual, _ = compiled([batch(num_objects)])
        assert actual["loss"] == pytest.approx(expected["loss"], rel=1e-3, abs=1e-5)
        graphs.append(counters["stats"]["unique_graphs"])
    assert 0 < graphs[0] == graphs[-1]
    assert compiled.state_dict()["model"].keys() == plain.state_dict()["model"].keys()
    images = batch(1)[0] / 255
    with torch.no_grad():
        logits = [
            model.eval().raw_outputs(images)[0] for model in (compiled.detector, copy.deepcopy(compiled.detector))
        ]
    torch.testing.assert_close(*logits, rtol=1e-3, atol=1e-4)
    assert len(compiled.eval_detector(images)) == 2
