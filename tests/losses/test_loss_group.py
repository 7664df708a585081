"""Losses over a process group: the same as one process that holds the joined batch, however it is split."""

import pytest
import torch
import torch.distributed as dist
from fork_server import run_processes
from group_worker import CASES, losses_and_gradients, make_case, work

from losses.matched import Matched
from losses.table import LOSSES, build_loss

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}


@pytest.fixture(scope="module")
def by_rank(tmp_path_factory):
    folder = tmp_path_factory.mktemp("group")
    run_processes(work, (str(folder),), 3)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(3)]


@pytest.fixture(params=[2, 3], ids=["two processes", "three processes"])
def of_processes(request, by_rank):
    """What each process of a group of that size got, in the order of ranks; two are a part of three."""
    return [
        {key[1:]: value for key, value in results.items() if key[0] == request.param}
        for results in by_rank[-request.param :]
    ]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_equals_one_process_with_the_joined_batch(of_processes, name, dtype):
    case = make_case(name, len(of_processes))
    inputs = {key: case[key].to(dtype) for key in ("logits", "loc_errors", "boxes")}
    expected = losses_and_gradients(targets=case["targets"], **inputs)
    for loss, wanted in expected.items():
        results = [process[name, dtype][loss] for process in of_processes]
        for result in results:
            torch.testing.assert_close(result["values"], results[0]["values"], rtol=0, atol=0, equal_nan=True)
        torch.testing.assert_close(
            results[0]["values"], wanted["values"], rtol=TOLERANCE[dtype], atol=0, equal_nan=True
        )
        if "not finite" in name:
            assert loss == "smooth_l1" or not results[0]["values"].isfinite().any()
            continue
        for key, gradient in wanted["gradients"].items():
            if gradient is not None:
                joined = torch.cat([result["gradients"][key] for result in results])
                allowed = TOLERANCE[dtype] * gradient.abs().max() if len(gradient) else 0
                assert joined.shape == gradient.shape and ((joined - gradient).abs() <= allowed).all()


def test_every_loss_of_flat_tensors_is_compared():
    inputs = {"logits": torch.zeros(2), "loc_errors": torch.zeros(1), "boxes": torch.zeros(1, 4)}
    compared = losses_and_gradients(targets=torch.tensor([1, 0]), **inputs)
    assert compared.keys() - {"smooth_l1"} == LOSSES.keys() - {"freeanchor", "centernet"}  # of bags, and of heat maps


def test_takes_few_collectives_and_as_many_on_every_process(of_processes):
    for key in of_processes[0]:
        for loss, most in {"alrp": 3, "ap": 3, "rs": 3, "focal": 1, "dr": 2, "ce": 1, "smooth_l1": 1}.items():
            counts = {process[key][loss]["collectives"] for process in of_processes}
            assert len(counts) == 1 and 1 <= counts.pop() <= most


@pytest.fixture
def group_of_one(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    yield dist.group.WORLD
    dist.destroy_process_group()


@pytest.mark.parametrize("name", ["ap", "focal", "dr", "rs", "ce"])
def test_boxes_of_what_a_head_matched_are_averaged_over_the_group(group_of_one, monkeypatch, name):
    boxes = torch.tensor([[0.0, 0, 10, 10]])
    matched = Matched(
        torch.zeros(4), torch.tensor([1, 0, 0, -1]), torch.tensor([0]), boxes, boxes + 1, boxes, lambda: boxes + 1
    )
    summed, all_reduce = [], dist.all_reduce
    monkeypatch.setattr(
        dist, "all_reduce", lambda values, *a, **k: summed.append(values.numel()) or all_reduce(values, *a, **k)
    )
    build_loss(LOSSES[name].Settings()).of_matched(matched, group_of_one)
    assert summed[-1] == 2  # the sum of the box errors, and what divides it
