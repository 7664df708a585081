"""The pairs of the proof: the same seed gives every loss the same first weights, and everything but the loss is alike,
from which the order of images and their augmentation follow."""

from pathlib import Path

import pytest
import torch

from detector.build import build_detector
from engine.tools.ablation.grid import Cell, load_grid

GRIDS = sorted((Path(__file__).resolve().parents[4] / "configs/ablations/proof").glob("*.yaml"))


@pytest.mark.parametrize("path", GRIDS, ids=lambda path: path.stem)
def test_pairs_differ_in_their_loss_alone(path, tmp_path):
    grid = load_grid(path)
    weights, others = [], []
    for variant in grid.variants:
        _, config = grid.cell_config(Cell(variant, 0.04, grid.seeds[0]), tmp_path)
        torch.manual_seed(config.run.seed)
        weights.append(build_detector(config, num_classes=3).state_dict())
        plain = config.to_dict()
        others.append([plain[group] for group in ("model", "data", "optimizer", "schedule", "evaluation")])
    assert all(other == others[0] for other in others)
    for other in weights[1:]:
        parameters = {name for name in other if "balance" not in name}
        assert parameters == {name for name in weights[0] if "balance" not in name}
        assert all(torch.equal(other[name], weights[0][name]) for name in parameters)
