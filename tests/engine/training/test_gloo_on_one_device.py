"""Two processes on one device take the steps of one process."""

import json

import pytest
import torch.multiprocessing
from gloo_worker import take_steps

STEPS = 20


@pytest.mark.parametrize(
    "device", [pytest.param("cpu", marks=pytest.mark.slow), pytest.param("cuda:0", marks=pytest.mark.gpu)]
)
def test_two_processes_take_the_steps_of_one(config_file, tmp_path, device):
    losses = []
    for world_size in (1, 2):
        output = tmp_path / f"{world_size}.json"
        torch.multiprocessing.spawn(take_steps, (world_size, config_file, device, STEPS, output), nprocs=world_size)
        losses.append(json.loads(output.read_text()))
    assert len(losses[0]) == STEPS and min(losses[0]) > 0
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
