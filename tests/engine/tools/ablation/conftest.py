"""Grids that search their rates by the runs themselves, and by runs of their own."""

import pytest
from ablation_grids import GRID

from engine.tools.ablation.grid import load_grid


@pytest.fixture
def grid(tmp_path):
    (tmp_path / "grid.yaml").write_text(GRID)
    return load_grid(tmp_path / "grid.yaml")


@pytest.fixture
def searched(tmp_path):
    text = (
        GRID.replace("[0.01, 0.02]", "[0.01, 0.02, 0.04]") + "search: {overrides: [schedule.epochs=1], seeds: [0, 7]}\n"
    )
    (tmp_path / "grid.yaml").write_text(text)
    return load_grid(tmp_path / "grid.yaml")
