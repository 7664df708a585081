"""AP over the length of training: cells of each length, the rate chosen at each, and where losses cross."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from engine.run.config import ConfigError
from engine.tools.ablation.choice import chosen_cells, rates_at_the_edge
from engine.tools.ablation.grid import Cell, Result, all_cells, load_grid, search_cells
from engine.tools.ablation.lengths import crossings, differences, length_curves, length_table
from scripts import ablation

GRID = """
config: tiny.yaml
learning_rates: [0.01, 0.02]
lengths: [8, 2, 4]
seeds: [0, 1]
reference: aLRP
variants: {aLRP: [], AP: [loss.name=ap], Focal: [loss.name=focal]}
"""
BETTER_RATE = {2: 0.02, 4: 0.01, 8: 0.01}
STEPS_PER_EPOCH = 100


def mean_ap(variant: str, epochs: int) -> float:
    """Lines in log2 of the epochs: aLRP meets AP after 2^(3/2) of them, and Focal nowhere."""
    start, slope = {"aLRP": (0.10, 0.10), "AP": (0.19, 0.04), "Focal": (0.05, 0.04)}[variant]
    return start + slope * math.log2(epochs)


def result(cell: Cell) -> Result:
    ap = mean_ap(cell.variant, cell.epochs) + 0.01 * (2 * cell.seed - 1)  # seeds 0 and 1 lie .01 below and above
    ap -= 0.03 * (cell.learning_rate != BETTER_RATE[cell.epochs])
    return Result(cell, [{"epoch": cell.epochs, "step": cell.epochs * STEPS_PER_EPOCH, "AP": ap}], None, 10.0)


@pytest.fixture
def grid(tmp_path, write_config):
    write_config(tmp_path)
    (tmp_path / "grid.yaml").write_text(GRID)
    return load_grid(tmp_path / "grid.yaml")


@pytest.fixture
def results(grid):
    found = {cell: result(cell) for cell in search_cells(grid)}
    return found | {cell: result(cell) for cell in chosen_cells(grid, found)}


def test_each_length_has_its_own_cells_schedule_and_rate(grid, results, tmp_path):
    assert grid.size == 3 * 3 * (2 + 1) == len(results) and len(set(all_cells(grid))) == 3 * 3 * 2 * 2
    cell = Cell("AP", 0.01, 1, epochs=4)
    assert cell in results and cell.name == "ap_lr0.01_seed1_4epochs"
    longer = grid.model_copy(update={"overrides": ["schedule.epochs=8", "schedule.milestones=[4, 6]"]})
    _, config = longer.cell_config(cell, tmp_path)
    assert (config.schedule.epochs, config.schedule.milestones) == (4, [2, 3])
    _, shortest = longer.cell_config(Cell("AP", 0.01, 1, epochs=1), tmp_path)
    assert (shortest.schedule.epochs, shortest.schedule.milestones) == (1, [1])  # 1/2 and 3/4: one, and never reached
    assert {cell.epochs: cell.learning_rate for cell in chosen_cells(grid, results)} == BETTER_RATE


def test_differences_are_paired_at_each_length(grid, results):
    curves = length_curves(grid, results)
    assert {variant: [*points] for variant, points in curves.items()} == {key: [2, 4, 8] for key in grid.variants}
    found = differences(curves, "aLRP", "AP")
    assert [each.steps for each in found.values()] == [200, 400, 800]
    expected = [mean_ap("aLRP", epochs) - mean_ap("AP", epochs) for epochs in (2, 4, 8)]
    assert [each.mean for each in found.values()] == pytest.approx(expected)
    assert [each.half_width for each in found.values()] == pytest.approx([0, 0, 0], abs=1e-9)  # pairs differ alike

    results.pop(Cell("AP", 0.01, 1, epochs=8))
    left = differences(length_curves(grid, results), "aLRP", "AP")
    assert left[8].half_width is None and left[8].mean == pytest.approx(expected[2])


def test_the_table_says_where_losses_cross(grid, results):
    head, _, alrp, *_, against_ap, against_focal, _ = length_table(grid, length_curves(grid, results)).splitlines()
    assert head == "| AP on val | 200 steps | 400 steps | 800 steps | equal at |"
    assert alrp == ("| aLRP | 0.200 ± 0.014 (rate 0.02) | 0.300 ± 0.014 (rate 0.01) | 0.400 ± 0.014 (rate 0.01) | |")
    # 0.10 + 0.10 x = 0.19 + 0.04 x at x = 3/2, so 100 · 2^(3/2) steps
    assert against_ap == "| aLRP – AP | -0.030 ± 0.000 | +0.030 ± 0.000 | +0.090 ± 0.000 | 283 steps |"
    assert against_focal.endswith("| nowhere |")


def test_what_did_not_end_is_left_out(grid, results):
    some = {cell: each for cell, each in results.items() if cell.variant != "Focal" and cell.epochs != 4}
    curves = length_curves(grid, some)
    assert [*curves] == ["aLRP", "AP"]
    assert "400 steps" not in length_table(grid, curves)
    assert length_table(grid, {}).startswith("| AP on val |")


@pytest.mark.parametrize("seed", range(20))
def test_crossings_are_where_a_fine_curve_changes_its_sign(seed):
    generator = np.random.default_rng(seed)
    steps = np.cumsum(generator.integers(50, 2000, size=7))
    values = generator.normal(size=7)
    fine = np.linspace(np.log(steps[0]), np.log(steps[-1]), 200_001)
    signs = np.interp(fine, np.log(steps), values) > 0
    expected = np.exp(fine[1:][signs[1:] != signs[:-1]])
    np.testing.assert_allclose(crossings(steps.tolist(), values.tolist()), expected, rtol=1e-4)


def test_a_difference_of_zero_is_a_crossing_only_towards_the_negative():
    assert crossings([1, 2, 4], [-1.0, 0.0, 1.0]) == pytest.approx([2])
    assert crossings([1, 2, 4], [1.0, 0.0, 1.0]) == []
    assert crossings([1, 2], [1.0, 2.0]) == [] and crossings([5], [1.0]) == [] and crossings([], []) == []


@pytest.mark.parametrize("more", ["claims: [AP]", "search: {seeds: [0]}"])
def test_lengths_go_without_search_and_claims(tmp_path, more):
    (tmp_path / "grid.yaml").write_text(f"{GRID}{more}\n")
    with pytest.raises(ConfigError, match="without search and claims"):
        load_grid(tmp_path / "grid.yaml")
    (tmp_path / "grid.yaml").write_text(GRID.replace("[8, 2, 4]", "[2, 2]"))
    with pytest.raises(ConfigError, match="lengths must differ"):
        load_grid(tmp_path / "grid.yaml")


def test_a_report_of_kept_cells_draws_the_lengths(grid, results, tmp_path, call, capsys, monkeypatch):
    for cell, each in results.items():
        here = tmp_path / "out" / "cells" / cell.name
        here.mkdir(parents=True)
        overrides = [text for text in grid.cell_config(cell, Path("."))[0] if not text.startswith("run.dir=")]
        record = {"overrides": overrides, "ran": {}, "epochs": cell.epochs, "step_ms": 10.0, "clipped": 0, "test": None}
        (here / "cell.json").write_text(json.dumps(record))
        (here / "metrics.jsonl").write_text(json.dumps(each.history[-1]) + "\n")
    monkeypatch.setattr(ablation, "log_to_console", lambda is_main: None)  # it would outlive the test
    monkeypatch.setattr("signal.signal", lambda *_: None)  # this as well
    assert not call(ablation, "--grid", tmp_path / "grid.yaml", "--output", tmp_path / "out", "--report")
    printed = capsys.readouterr().out
    assert "| 283 steps |" in printed and "27 of 27 cells" in printed
    assert (tmp_path / "out/lengths.png").stat().st_size > 20_000 and not (tmp_path / "out/ap.png").exists()


def test_a_rate_at_the_edge_is_found_at_any_length(grid, results):
    assert rates_at_the_edge(grid, results).keys() == set(grid.variants)  # of two rates each is at an edge
    wider = grid.model_copy(update={"learning_rates": [0.005, 0.01, 0.02]})
    assert rates_at_the_edge(wider, results).keys() == set(grid.variants)  # 0.02 is the best of two epochs
    widest = grid.model_copy(update={"learning_rates": [0.005, 0.01, 0.02, 0.04]})
    assert rates_at_the_edge(widest, results) == {}
