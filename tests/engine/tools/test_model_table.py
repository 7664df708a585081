"""The table of the COCO models: what it counts, and that docs/models.md shows what the script prints."""

import runpy
from pathlib import Path

import pytest

from engine.run.config import load_config
from engine.tools.model_table import cost

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def small():
    config = load_config(ROOT / "configs/r50_alrp.yaml", ["model.fpn_channels=32", "model.head_convs=0"])
    return lambda **model: config.model_copy(update={"model": config.model.model_copy(update=model)})


def test_multiply_adds_are_those_of_the_convolutions(small):
    # one more 3×3 convolution of 32 channels in both towers, on 8×8 + 4×4 + 2×2 + 1 + 1 cells
    more = [cost(small(head_convs=count), (64, 64)) for count in (0, 1)]
    assert more[1][0] - more[0][0] == 2 * (32 * 32 * 9 + 32)
    assert more[1][1] - more[0][1] == 2 * (32 * 32 * 9) * (64 + 16 + 4 + 1 + 1)


def test_deformable_convolutions_cost_their_offsets_more(small):
    plain, deformable = (cost(small(deformable=each), (64, 64)) for each in (False, True))
    # R-50 at 64×64: blocks, inner channels and side of the output of the last three stages
    stages = [(4, 128, 8), (6, 256, 4), (3, 512, 2)]
    assert deformable[1] - plain[1] == sum(n * 27 * 9 * channels * side**2 for n, channels, side in stages)
    assert deformable[0] - plain[0] == sum(n * 27 * (9 * channels + 1) for n, channels, _ in stages)


@pytest.mark.slow
def test_the_documented_table_is_the_printed_one(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["model_table.py"])
    runpy.run_path(str(ROOT / "scripts/dev/model_table.py"))["main"]()
    assert capsys.readouterr().out in (ROOT / "docs/models.md").read_text()
