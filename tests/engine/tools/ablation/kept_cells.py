"""Kept cells of a small grid, as runs would have left them."""

import json
from pathlib import Path

import numpy as np

from engine.tools.ablation.cells import KeptCells
from engine.tools.ablation.grid import Cell, Grid, load_grid
from engine.tools.ablation.kept_matches import KeptMatches
from engine.tools.ablation.tables import METRICS

GRID = """
config: tiny.yaml
overrides: [schedule.epochs=3]
learning_rates: [0.01]
seeds: [0, 1, 2]
reference: aLRP
claims: [AP]
variants: {aLRP: [], AP: [loss.name=ap], Focal: [loss.name=focal]}
"""
NUM_IMAGES = 40


def write_grid(folder: Path) -> Grid:
    """The grid, beside the tiny.yaml that it names."""
    (folder / "grid.yaml").write_text(GRID)
    return load_grid(folder / "grid.yaml")


def keep(cells: KeptCells, cell: Cell, share: float) -> None:
    """Puts a cell there as if a run of it had found so large a share of the objects, one an image."""
    here = cells.folder / cell.name
    here.mkdir(parents=True)
    found = np.random.default_rng(cell.seed).random(NUM_IMAGES) < share
    true = found.astype(np.uint16)
    places = np.arange(NUM_IMAGES, dtype=np.uint32)
    objects = np.ones((1, NUM_IMAGES), np.uint32)
    matches = KeptMatches(places, true, 1 - true, np.array([0, NUM_IMAGES]), objects, np.array(1))
    matches.save(here / "matches.npz")
    test = dict.fromkeys(METRICS, 0.5) | {"AP": matches.average_precision(np.ones(NUM_IMAGES, dtype=int))}
    overrides = ["schedule.epochs=3", *cells.grid.variants[cell.variant].overrides, "optimizer.lr=0.01"]
    overrides += [f"run.seed={cell.seed}", f"run.name={cell.name}"]
    record = {"overrides": overrides, "ran": {}, "epochs": 3, "step_ms": 10.0, "clipped": 0.25, "test": test}
    (here / "cell.json").write_text(json.dumps(record))
    (here / "metrics.jsonl").write_text(json.dumps({"epoch": 3, "step": 9, "AP": 0.4}) + "\n")


def all_kept(grid, folder) -> KeptCells:
    cells = KeptCells(grid, folder / "cells")
    for seed in grid.seeds:
        keep(cells, Cell("aLRP", 0.01, seed), 0.9)
        keep(cells, Cell("AP", 0.01, seed), 0.4)
    return cells
