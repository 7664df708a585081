"""Loss modules in two processes under DistributedDataParallel: one process that has the joined batch is the oracle."""

import pytest
import torch
from fork_server import run_processes
from module_worker import EVERY, LOSSES, STEPS, Head, train, work


@pytest.fixture(scope="module")
def by_rank(tmp_path_factory):
    folder = tmp_path_factory.mktemp("modules")
    run_processes(work, (str(folder),), 2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("name", LOSSES)
def test_trains_as_one_process_with_the_joined_batch(by_rank, name):
    wanted = train(Head(LOSSES[name](None)), slice(0, 4))
    assert wanted["gradients"][0].count_nonzero() > 20 and not wanted["gradients"][-1].any()
    for results in (ranked[name] for ranked in by_rank):
        for step in range(STEPS):
            torch.testing.assert_close(results["parts"][step], wanted["parts"][step], rtol=1e-5, atol=1e-7)
            torch.testing.assert_close(results["gradients"][step], wanted["gradients"][step], rtol=1e-4, atol=1e-6)


def test_the_balance_is_that_of_the_joined_batch_on_every_process(by_rank):
    wanted = train(Head(LOSSES["alrp"](None)), slice(0, 4))["balances"]
    for step, own in enumerate(wanted):
        first, second = (
            {k.removeprefix("module."): v for k, v in r["alrp"]["balances"][step].items()} for r in by_rank
        )
        assert first == second
        for key, value in own.items():
            torch.testing.assert_close(first[key], value, rtol=1e-5, atol=0)
        assert first["criterion.balance.steps"] == (step + 1) % EVERY
    assert wanted[0]["criterion.balance.weight"] == 50 != wanted[1]["criterion.balance.weight"]


def test_the_group_world_is_this_process_where_there_is_no_other():
    alone, world = (train(Head(LOSSES["rs"](group)), slice(0, 4)) for group in (None, "world"))
    assert all(torch.equal(a, w) for a, w in zip(alone["gradients"], world["gradients"], strict=True))
