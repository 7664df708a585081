"""What a training step costs besides arithmetic: waiting for the device, and talking to other processes."""

import warnings

import pytest
import torch
import torch.distributed as dist
from operation_counter import OperationCounter

from data.targets import BatchTargets
from engine.run.config import load_config
from engine.run.distributed import Processes
from engine.run.schedule import build_schedule
from engine.training.train_step import TrainStep

SYNCHRONIZES = "called a synchronizing CUDA operation"  # PyTorch's warning; the first one is of the mode itself


@pytest.fixture
def make_step(write_config, tmp_path):
    """make_step(processes, *overrides) -> a training step of the small detector, and a batch for it."""

    def make(processes, *overrides):
        config = load_config(write_config(tmp_path), [f"run.device={processes.device.type}", *overrides])
        step = TrainStep(config, processes, build_schedule(config, 12), 3, load_weights=False)
        target = {
            "boxes": torch.tensor([[8.0, 8, 40, 40]]),
            "labels": torch.tensor([1]),
            "crowd": torch.tensor([False]),
        }
        return step, (torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8), BatchTargets.join([target] * 4))

    return make


@pytest.fixture
def group_of_one(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_collectives_of_a_step(make_step, group_of_one):
    def collectives(*overrides):
        # Says that it is one of two, so that it talks; the group has one member, so that it need not be started.
        step, batch = make_step(Processes(0, 2, torch.device("cpu")), "run.log_every=100", *overrides)
        step([batch])  # agrees on the order of the buckets, once
        with OperationCounter() as operations:
            step([batch])
        return operations.collectives

    alone = collectives("loss.ranking=local")
    assert alone == ["allreduce_"] * 4  # three buckets of gradients, and the numbers to log
    for name, most in {"alrp": 3, "rs": 4, "ap": 4, "focal": 2}.items():  # with their box losses
        assert 0 < len(collectives(f"loss.name={name}")) - len(alone) <= most


@pytest.mark.parametrize("name", ["alrp", "rs", "ap", "focal"])
def test_a_step_would_wait_for_a_gpu_for_its_positives_alone_before_its_numbers(make_step, monkeypatch, name):
    monkeypatch.setattr("losses.ranking.logit_bins.LogitBins._build_table", lambda bins: None)  # for CPUs
    step, batch = make_step(Processes(0, 1, torch.device("cpu")), f"loss.name={name}", "run.log_every=100")
    step([batch])
    with OperationCounter() as operations:
        step([batch])  # `tolist`, which reads the numbers, is no operation on a CPU
    assert operations.waits == {"nonzero": 1}


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["alrp", "rs", "ap", "focal"])
def test_a_step_waits_for_the_gpu_for_its_positives_and_its_numbers(make_step, name):
    step, (images, targets) = make_step(
        Processes(0, 1, torch.device("cuda", 0)), f"loss.name={name}", "run.log_every=100"
    )
    batch = images.pin_memory(), targets.pin_memory()
    step([batch])  # compiles
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            step([batch])
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waits = [str(warning.message) for warning in caught if SYNCHRONIZES in str(warning.message)]
    assert len(waits) <= 2, waits
