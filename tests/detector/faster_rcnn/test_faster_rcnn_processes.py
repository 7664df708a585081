"""Faster R-CNN on two processes, each with images of its own: both heads rank, or average, over all of them."""

import pytest
import torch
import torch.multiprocessing as mp
from faster_rcnn_worker import FORMS, losses_and_gradients, work


@pytest.fixture(scope="module")
def processes(tmp_path_factory) -> list[dict[str, dict[str, torch.Tensor]]]:
    folder = tmp_path_factory.mktemp("processes")
    mp.spawn(work, (str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_two_processes_equal_one_with_the_joined_batch(processes, form):
    first, second = (found[form] for found in processes)
    joined = losses_and_gradients(form, slice(0, 3))
    parts = {name: value.item() for name, value in joined.items() if not name.startswith("d ")}
    assert len(parts) == 5 and min(parts.values()) > 0
    for name, value in joined.items():
        if name in parts:
            assert torch.equal(first[name], second[name])
            torch.testing.assert_close(first[name], value, rtol=1e-9, atol=0)
        else:
            scale = value.abs().max().item()
            assert scale > 0, name
            torch.testing.assert_close(first[name] + second[name], value, rtol=0, atol=1e-7 * scale)
