"""Claims over kept cells: intervals, tests and verdicts, and pairs that are refused."""

import json
import math
import shutil

import numpy as np
import pytest
from kept_cells import all_kept, keep, write_grid

import scripts.claims as script
from engine.run.config import ConfigError
from engine.tools.ablation import claims
from engine.tools.ablation.cells import KeptCells
from engine.tools.ablation.claims import claims_of, claims_table, parts_table
from engine.tools.ablation.grid import Cell
from engine.tools.ablation.kept_matches import KeptMatches


@pytest.fixture
def grid(tmp_path, write_config):
    write_config(tmp_path)
    return write_grid(tmp_path)


def test_draws_of_images_without_objects_say_nothing(grid, tmp_path, monkeypatch):
    cells = all_kept(grid, tmp_path / "a")
    values = iter([0.5, 0.4, math.nan, 0.6])
    monkeypatch.setattr(claims, "bootstrap_means", lambda runs, draws: np.array([next(values), next(values)]))
    (claim,) = claims_of(cells, "tiny", draws=2)  # .5 less NaN, .4 less .6
    assert claim.bootstrap == pytest.approx((-0.2, -0.2)) and claim.bootstrap_p == 1.0
    monkeypatch.setattr(claims, "bootstrap_means", lambda runs, draws: np.full(2, math.nan))
    with pytest.raises(ConfigError, match="no objects"):
        list(claims_of(cells, "tiny", draws=2))


def test_two_grids_of_one_name_are_two(grid, tmp_path, call, capsys):
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        all_kept(grid, folder)
        shutil.copy(tmp_path / "grid.yaml", folder)
        shutil.copy(tmp_path / "tiny.yaml", folder)
    pairs = [f"{folder / 'grid.yaml'}={folder}" for folder in folders]
    assert call(script, "--draws", 20, "--grid", *pairs) == 0
    said = capsys.readouterr().out
    assert said.count("| aLRP – AP | 3 |") == 2 and f"| {pairs[1]} |" in said
    with pytest.raises(SystemExit) as end:
        call(script, "--draws", 20, "--grid", pairs[0], *pairs)
    said = capsys.readouterr().err
    assert end.value.code == 2 and said.startswith("error: ") and "given twice" in said


def test_claims_are_tested_over_seeds_and_images(grid, tmp_path):
    cells = all_kept(grid, tmp_path / "a")
    (claim,) = claims_of(cells, "tiny", draws=200)
    assert claim.seeds == 3 and 0 < claim.bootstrap[0] < claim.mean < claim.bootstrap[1]
    table = claims_table([claim], {"tiny": "aLRP"})
    assert table.splitlines()[2].startswith("| tiny | aLRP – AP | 3 | +0.") and table.endswith("| ahead |")


@pytest.mark.parametrize("ran", [{"device": "NVIDIA H100, CUDA 13", "precision": "bfloat16"}, {"precision": "float32"}])
def test_a_pair_of_two_devices_or_precisions_is_refused(grid, tmp_path, ran):
    cells = all_kept(grid, tmp_path / "a")
    usual = {"device": "cpu (AMD EPYC), 1 threads", "precision": "bfloat16"}
    for variant in ("aLRP", "AP"):
        for seed in grid.seeds:
            path = cells.folder / Cell(variant, 0.01, seed).name / "cell.json"
            other = ran if (variant, seed) == ("AP", 1) else {"device": "cpu (Intel), 2 threads"}
            path.write_text(json.dumps(json.loads(path.read_text()) | {"ran": usual | other}))
    with pytest.raises(ConfigError, match=r"seed1 ran on cpu, bfloat16 and .*seed1 on .*; a pair must not mix them"):
        list(claims_of(cells, "tiny", draws=10))


def test_differences_in_the_parts_say_why(grid, tmp_path):
    cells = all_kept(grid, tmp_path / "a")
    for variant, rho in (("aLRP", (0.5, 0.6, 0.7)), ("AP", (0.4, 0.4, 0.4))):
        for seed in grid.seeds:
            path = cells.folder / Cell(variant, 0.01, seed).name / "cell.json"
            record = json.loads(path.read_text())
            record["test"] |= {"rho": rho[seed], "oLRP_loc": 0.2 + 0.1 * (variant == "AP")}
            path.write_text(json.dumps(record))
    head, _, row = parts_table(list(claims_of(cells, "tiny", draws=10)), {"tiny": "aLRP"}).splitlines()
    columns = dict(zip(head.strip("| ").split(" | "), row.strip("| ").split(" | "), strict=True))
    assert columns["comparison"] == "aLRP – AP"
    assert columns["ρ"] == "+0.200 ± 0.248"  # .1 .2 .3: sd .1, t = 4.303
    assert columns["oLRP_loc"] == "-0.100 ± 0.000" and columns["AP75"] == "+0.000 ± 0.000"
    assert {"AP50", "AP75", "AP90", "oLRP", "oLRP_loc", "oLRP_fp", "oLRP_fn"} < columns.keys()


def test_a_claim_needs_two_pairs(grid, tmp_path):
    cells = KeptCells(grid, tmp_path / "cells")
    keep(cells, Cell("aLRP", 0.01, 0), 0.9)
    keep(cells, Cell("AP", 0.01, 0), 0.4)
    with pytest.raises(ConfigError, match="1 pairs of tested runs"):
        list(claims_of(cells, "tiny", draws=10))
    keep(cells, Cell("aLRP", 0.01, 2), 0.9)
    keep(cells, Cell("AP", 0.01, 2), 0.4)
    table = claims_table(list(claims_of(cells, "tiny", draws=10)), {"tiny": "aLRP"})
    assert "| tiny | aLRP – AP | 2 of 3 |" in table and table.endswith("| unfinished |")


def test_the_runs_of_the_reference_are_drawn_once_for_all_claims(grid, tmp_path, monkeypatch):
    grid = grid.model_copy(update={"claims": ["AP", "Focal"]})
    cells = all_kept(grid, tmp_path / "a")
    for seed in grid.seeds:
        keep(cells, Cell("Focal", 0.01, seed), 0.6)
    calls = []
    plain = KeptMatches.average_precision
    monkeypatch.setattr(KeptMatches, "average_precision", lambda self, weights: calls.append(1) or plain(self, weights))
    claims = {claim.variant: claim for claim in claims_of(cells, "tiny", draws=30)}
    of_three = len(calls)
    alone = KeptCells(grid.model_copy(update={"claims": ["Focal"]}), cells.folder)
    calls.clear()
    assert list(claims_of(alone, "tiny", draws=30)) == [claims["Focal"]]
    assert of_three * 2 == len(calls) * 3


def test_a_grid_without_claims_gives_intervals_and_leaves_the_p_values_alone(grid, tmp_path):
    cells = all_kept(grid, tmp_path / "a")
    for seed in grid.seeds:
        keep(cells, Cell("Focal", 0.01, seed), 0.6)
    claims = list(claims_of(cells, "tiny", draws=200))
    effects = list(claims_of(KeptCells(grid.model_copy(update={"claims": []}), cells.folder), "other", draws=200))
    assert [effect.variant for effect in effects] == ["AP", "Focal"] and not any(effect.claimed for effect in effects)
    assert (effects[0].mean, effects[0].bootstrap) == (claims[0].mean, claims[0].bootstrap)
    rows = claims_table([*claims, *effects], {"tiny": "aLRP", "other": "aLRP"}).splitlines()
    assert rows[2] == claims_table(claims, {"tiny": "aLRP"}).splitlines()[2]
    assert all(row.endswith("| | | | no claim |") and row.count("|") == rows[0].count("|") for row in rows[3:])


def test_runs_on_different_images_are_refused(grid, tmp_path):
    cells = all_kept(grid, tmp_path / "a")
    places, counts = np.arange(5, dtype=np.uint32), np.ones((1, 5), np.uint32)
    none = np.zeros(5, np.uint16)
    other = KeptMatches(places, none, none, np.array([0, 5]), counts, np.array(1))
    other.save(cells.folder / Cell("AP", 0.01, 2).name / "matches.npz")
    with pytest.raises(ConfigError, match="tested on other images"):
        list(claims_of(cells, "tiny", draws=10))
