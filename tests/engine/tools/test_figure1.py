"""scripts/figure1.py: recomputed numbers agree with the published ones, and one that does not is found."""

import runpy
import sys
from pathlib import Path

import pytest

from engine.tools.figure1 import IOUS

SCRIPT = Path(__file__).resolve().parents[3] / "scripts/figure1.py"


@pytest.fixture
def figure1(monkeypatch):
    """The script's names; main() takes its arguments from the list that is returned with them."""
    arguments = ["figure1.py"]
    monkeypatch.setattr(sys, "argv", arguments)
    return runpy.run_path(str(SCRIPT)), arguments


def test_the_published_numbers_come_out(figure1, capsys, tmp_path):
    names, arguments = figure1
    arguments += ["--output", str(tmp_path)]
    assert names["main"]() == 0
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 7 and "0.53" in printed[1] and "0.89" in printed[6]
    assert (tmp_path / "figure1.png").read_bytes().startswith(b"\x89PNG")


def test_worse_localisation_of_a_confident_positive_is_a_difference(figure1, monkeypatch, capsys):
    names, _ = figure1
    monkeypatch.setitem(IOUS, "C & R1", [0.80, *IOUS["C & R1"][1:]])
    assert names["main"]() == 1
    error = capsys.readouterr().err
    assert "C & R1: AP95 is 0.0" in error and "aLRP" in error and "C & R2" not in error
