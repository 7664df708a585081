"""The hyper-parameters that docs/table1.md counts are those of the settings classes."""

import re
from pathlib import Path
from typing import get_type_hints

import pytest

from losses.table import LOSSES

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/table1.md"
LOSS_OF = {
    "aLRP Loss": "alrp",
    "AP Loss": "ap",
    "Focal Loss": "focal",
    "FCOS": "focal",
    "DR Loss": "dr",
    "FreeAnchor": "freeanchor",
    "Faster R-CNN": "ce",
    "CenterNet": "centernet",
}
PAPER = {
    "aLRP Loss": 1,
    "AP Loss": 3,
    "Focal Loss": 4,
    "FCOS": 4,
    "DR Loss": 5,
    "FreeAnchor": 8,
    "Faster R-CNN": 9,
    "CenterNet": 10,
}


def test_the_document_counts_the_keys_of_the_classes():
    section = DOCUMENT.read_text().split("## Hyper-parameters")[1].split("## ")[0]
    rows = re.findall(r"^\| ([\w -]+) \| (`.*?`) \| (\d+) \| (\d+) \|", section, re.MULTILINE)
    assert {system for system, *_ in rows} == set(LOSS_OF)
    for system, keys, number, papers in rows:
        names = LOSSES[LOSS_OF[system]].Settings.hyper_parameters
        assert tuple(re.findall(r"`(\w+)`", keys)) == names and int(number) == len(names)
        assert int(papers) == PAPER[system]


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_every_number_is_one(loss):
    hints = get_type_hints(loss.Settings)
    numbers = {name for name in loss.Settings.key_names() if hints[name] in (float, int)}
    assert set(loss.Settings.hyper_parameters) == numbers
