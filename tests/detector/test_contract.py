"""detector/contract.py: what a new family forgets is said when it is built, and not trained without a word."""

import pytest
from torch import nn

from detector.contract import Detector, require_contract
from losses import SelfBalance


class Family(Detector):
    """A detector of one layer whose training has a state."""

    class_head = ("classes.weight", "classes.bias")

    def __init__(self, home: str = "objective") -> None:
        super().__init__()
        self.classes = nn.Linear(2, 3)
        self.add_module(home, nn.ModuleDict({"balance": SelfBalance()}))

    def forward(self, images, targets=None, image_sizes=None, group=None, monitor=None):
        raise NotImplementedError

    def outputs(self, images):
        raise NotImplementedError

    def compile_network(self):
        raise NotImplementedError

    def balances(self):
        return {"": next(module for module in self.modules() if isinstance(module, SelfBalance))}


def test_a_family_that_says_everything_passes():
    require_contract(Family())


@pytest.mark.parametrize("named", [(), ("classes.weight", "logits.bias")])
def test_a_class_head_that_is_not_named_would_be_taken_over_from_other_classes(monkeypatch, named):
    monkeypatch.setattr(Family, "class_head", named)
    with pytest.raises(TypeError, match=r"Family\.class_head must name parameters, got \("):
        require_contract(Family())


def test_a_balance_that_is_not_given_would_never_move(monkeypatch):
    monkeypatch.setattr(Family, "balances", Detector.balances)
    with pytest.raises(TypeError, match=r"Family\.balances\(\) must give objective\.balance, "):
        require_contract(Family())


def test_state_of_the_training_elsewhere_would_be_taken_over_in_fine_tuning():
    with pytest.raises(TypeError, match=r"criterion\.balance is state of the training.*'objective'"):
        require_contract(Family("criterion"))
