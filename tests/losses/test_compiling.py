"""torch.compile around the functions on flat tensors. Oracle: the functions without it."""

import inspect
import pickle

import pytest
import torch

from losses import alrp_loss, ap_loss, dr_loss, rs_loss


@pytest.mark.parametrize("whole", [True, False], ids=["itself", "called"])
@pytest.mark.parametrize("loss", [alrp_loss, ap_loss, rs_loss, dr_loss])
def test_a_function_is_not_compiled_for_every_number_of_positives(loss, whole):
    counters = torch._dynamo.utils.counters
    torch._dynamo.reset()
    counters.clear()
    compiled = torch.compile(loss if whole else lambda *batch: loss(*batch), backend="eager")
    logits = torch.linspace(-1, 1, 40)
    for count in (3, 4, 6, 9):
        targets = torch.tensor([1] * count + [0] * (40 - count))
        rest = (torch.full((count,), 0.5),) if loss in (alrp_loss, rs_loss) else ()
        assert compiled(logits, targets, *rest) == loss(logits, targets, *rest)
    assert counters["stats"]["unique_graphs"] == 0


@pytest.mark.parametrize("loss", [alrp_loss, ap_loss, rs_loss, dr_loss])
def test_functions_keep_name_signature_and_pickle(loss):
    assert pickle.loads(pickle.dumps(loss)) is loss and loss.__doc__
    assert list(inspect.signature(loss).parameters)[:2] == ["logits", "targets"]
