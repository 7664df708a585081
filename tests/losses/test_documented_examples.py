"""The examples of docs/using-the-loss.md run and do what they say."""

import re
import sys
from pathlib import Path

import pytest
import torch

import losses

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "using-the-loss.md"


@pytest.fixture
def examples(monkeypatch) -> list[str]:
    monkeypatch.setitem(sys.modules, "alrp", losses)  # as which this folder is installed
    return re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)


def test_the_loop_learns_classes_and_boxes_and_balances(examples):
    names: dict = {}
    exec(examples[0], names)
    history, weights = names["history"], [weight for *_, weight in names["history"]]
    assert history[-1][0] < history[0][0] / 5
    assert weights[48:51] == [50, weights[49], weights[49]] and len(set(weights)) == 4
    decided = names["labels"] >= 0
    logits, labels = names["model"](names["features"])[decided][:, :3], names["labels"][decided]
    top = logits.flatten().argsort(descending=True)[: 80 // 2]  # half as many as there are objects
    assert (labels[top // 3] == top % 3).float().mean() > 0.9
    restored = losses.ALRPLoss(balance_every=50)
    restored.load_state_dict(names["checkpoint"]["criterion"])
    assert restored.balance.weight == weights[-1]


def test_the_criterion_of_all_processes_is_made(examples):
    names = {"ALRPLoss": losses.ALRPLoss}
    exec(examples[1], names)
    logits, labels = torch.tensor([[3.0], [0.0], [2.0]]), torch.tensor([0, 0, 1])
    assert names["criterion"](logits, labels, loc_errors=torch.zeros(3))[0].item() == pytest.approx(1 / 6)


def test_the_plain_example_learns_to_rank_and_to_estimate(examples, capsys):
    names: dict = {}
    exec(examples[2], names)
    (first_ranking, first_values), (last_ranking, last_values) = names["history"][0], names["history"][-1]
    assert last_ranking < first_ranking / 10 and last_values < first_values / 4
    with torch.no_grad():
        scores = names["model"](names["features"])[:, 0]
    best = scores.argsort(descending=True)[:100]
    assert names["targets"][best].mean() > 0.85  # 0.01 by chance
    assert capsys.readouterr().out.count("ranking error") == 2
