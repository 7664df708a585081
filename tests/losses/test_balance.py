import pytest
import torch

from losses import SelfBalance


def record(balance, *steps):
    for cls, loc in steps:
        balance.record(torch.tensor(cls), torch.tensor(loc))


def test_weight_is_the_ratio_of_the_epochs_means():
    balance = SelfBalance()
    assert balance.weight.item() == 50
    record(balance, (0.9, 0.3), (0.7, 0.1))
    assert balance.weight.item() == 50  # not before the end of the epoch
    balance.update()
    assert balance.weight.item() == pytest.approx((0.8 + 0.2) / 0.2)
    record(balance, (0.5, 0.5))  # the first epoch is forgotten
    balance.update()
    assert balance.weight.item() == pytest.approx(2.0)


@pytest.mark.parametrize("steps", [(), ((0.5, 0.0),), ((0.5, -1.0),), ((0.5, float("nan")),), ((float("inf"), 0.5),)])
def test_weight_stays_where_the_ratio_says_nothing(steps):
    balance = SelfBalance(initial=7.0)
    record(balance, *steps)
    balance.update()
    assert balance.weight.item() == 7
    record(balance, (0.5, 0.5))  # and the bad epoch leaves no trace
    balance.update()
    assert balance.weight.item() == pytest.approx(2.0)


def test_checkpoint_within_an_epoch_forgets_nothing():
    balance, resumed = SelfBalance(), SelfBalance()
    record(balance, (0.9, 0.3))
    resumed.load_state_dict(balance.state_dict())
    for each in (balance, resumed):
        record(each, (0.7, 0.1))
        each.update()
    assert resumed.weight.item() == balance.weight.item() == pytest.approx(5.0)


def test_recorded_losses_are_detached():
    balance = SelfBalance()
    balance.record(torch.tensor(0.5, requires_grad=True), torch.tensor(0.5, requires_grad=True))
    assert not balance.cls_sum.requires_grad


@pytest.mark.parametrize("cast", ["bfloat16", "half", "float"])
def test_a_model_that_is_cast_leaves_it_in_float64(cast):
    model = torch.nn.ModuleDict({"head": torch.nn.Linear(1, 1), "balance": SelfBalance(initial=1 / 3)})
    getattr(model, cast)()
    balance = model["balance"]
    assert balance.weight.item() == 1 / 3
    record(balance, *[(0.9, 0.3)] * 600)
    balance.update()
    assert balance.weight.item() == pytest.approx(4.0)


def test_it_follows_the_parts_to_their_device():
    balance = SelfBalance(every=1)
    part = torch.ones((), device="meta")  # stands for a GPU's
    balance.step(part, part)
    assert {buffer.device.type for buffer in balance.buffers()} == {"meta"}


@pytest.mark.gpu
def test_it_follows_the_parts_to_a_gpu():
    balance = SelfBalance(every=1)
    balance.step(torch.tensor(0.9, device="cuda"), torch.tensor(0.3, device="cuda"))
    assert balance.weight.item() == pytest.approx(4.0)


@pytest.mark.parametrize("assign", [False, True])
def test_a_state_that_was_cast_comes_back_in_all_its_digits(assign):
    balance, state = SelfBalance(), {name: value.half() for name, value in SelfBalance().state_dict().items()}
    balance.load_state_dict(state, assign=assign)
    for _ in range(3000):
        balance.record(torch.tensor(0.25), torch.tensor(0.25))
    assert balance.cls_sum.item() == 750  # in float16 it would stop at 512
    assert balance.weight.dtype == torch.float64 and balance.weight.item() == 50
