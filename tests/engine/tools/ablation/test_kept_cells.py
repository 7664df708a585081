"""Cells that are kept: between folders by bundles, refused where they are of another grid or damaged."""

import io
import json
import math
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from data.errors import DatasetError
from engine.run.config import ConfigError
from engine.tools.ablation import cells as cells_module
from engine.tools.ablation import claims
from engine.tools.ablation.cells import KeptCells
from engine.tools.ablation.claims import claims_of, claims_table, parts_table
from engine.tools.ablation.grid import Cell, load_grid
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
ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture
def grid(tmp_path, write_config):
    write_config(tmp_path)
    (tmp_path / "grid.yaml").write_text(GRID)
    return load_grid(tmp_path / "grid.yaml")


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


def keep_a_run(grid, folder) -> KeptCells:
    """Of one cell, whose run was evaluated once and drew no curves."""
    cells, cell = KeptCells(grid, folder / "cells"), Cell("AP", 0.01, 1)
    _, config = grid.cell_config(cell, folder / "runs")
    run = folder / "runs" / cell.name
    run.mkdir(parents=True)
    (run / "provenance.jsonl").write_text('{"step": 0, "revision": "abc"}\n')
    (run / "metrics.jsonl").write_text('{"epoch": 3, "step": 9, "AP": 0.25}\n')
    cells.keep(cell, config, run)
    return cells


def all_kept(grid, folder) -> KeptCells:
    cells = KeptCells(grid, folder / "cells")
    for seed in grid.seeds:
        keep(cells, Cell("aLRP", 0.01, seed), 0.9)
        keep(cells, Cell("AP", 0.01, seed), 0.4)
    return cells


def test_bundles_carry_cells_to_where_they_are_not(grid, tmp_path):
    here, there = all_kept(grid, tmp_path / "a"), KeptCells(grid, tmp_path / "b" / "cells")
    keep(there, Cell("AP", 0.01, 1), 0.7)  # its own run stays
    assert here.bundle(tmp_path / "cells.tar.gz") == 6
    assert there.merge(tmp_path / "cells.tar.gz") == 5 and there.merge(tmp_path / "cells.tar.gz") == 0
    mine, theirs = here.results(), there.results()
    assert mine.keys() == theirs.keys()
    assert [cell for cell in mine if mine[cell] != theirs[cell]] == [Cell("AP", 0.01, 1)]
    assert mine[Cell("aLRP", 0.01, 0)].clipped == 0.25


def test_cells_of_other_settings_are_refused(grid, tmp_path):
    cells = all_kept(grid, tmp_path / "a")
    other = grid.model_copy(update={"overrides": ["schedule.epochs=4"]})
    with pytest.raises(ConfigError, match=r"schedule\.epochs=3, schedule\.epochs=4"):
        KeptCells(other, cells.folder).results()


def test_cells_of_another_experiment_are_refused(grid, tmp_path):
    cells = all_kept(grid, tmp_path / "a")
    own = grid.variants["AP"].model_copy(update={"config": grid.config})
    other = grid.model_copy(update={"variants": grid.variants | {"AP": own}})
    with pytest.raises(ConfigError, match=r"other settings than the grid's \(config=tiny\.yaml\)"):
        KeptCells(other, cells.folder).results()


def test_what_is_no_bundle_is_refused(grid, tmp_path):
    (tmp_path / "text.tar.gz").write_text("not an archive")
    with pytest.raises(ConfigError, match="not a bundle"):
        KeptCells(grid, tmp_path / "cells").merge(tmp_path / "text.tar.gz")


@pytest.mark.parametrize("harm", ["settings", "cell.json", "metrics.jsonl", "matches.npz"])
def test_a_bundle_that_is_refused_leaves_everything_as_it_was(grid, tmp_path, harm):
    theirs = all_kept(grid, tmp_path / "a")
    damaged = theirs.folder / Cell("AP", 0.01, 2).name
    if harm == "settings":
        record = (damaged / "cell.json").read_text()
        (damaged / "cell.json").write_text(record.replace("schedule.epochs=3", "schedule.epochs=4"))
    else:
        (damaged / harm).write_bytes(b"{}\n")
    theirs.bundle(tmp_path / "cells.tar.gz")
    mine = KeptCells(grid, tmp_path / "b" / "cells")
    keep(mine, Cell("AP", 0.01, 1), 0.4)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises((ConfigError, DatasetError), match=r"cells\.tar\.gz: cells/ap_lr0\.01_seed2: "):
        mine.merge(tmp_path / "cells.tar.gz")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_bundle_writes_nowhere_else(grid, tmp_path):
    all_kept(grid, tmp_path / "a").bundle(tmp_path / "good.tar.gz")
    name = Cell("aLRP", 0.01, 0).name
    with tarfile.open(tmp_path / "evil.tar.gz", "w:gz") as archive:
        for path in ("../evil.json", "cells/../../cell.json", f"cells/{name}/../x", "cells/other/cell.json", "/etc/x"):
            member = tarfile.TarInfo(path)
            member.size = 2
            archive.addfile(member, io.BytesIO(b"{}"))
    before = sorted(tmp_path.rglob("*"))
    assert KeptCells(grid, tmp_path / "b" / "cells").merge(tmp_path / "evil.tar.gz") == 0
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_without_a_point_on_its_curves_is_kept_without_speed(grid, tmp_path):
    cells = keep_a_run(grid, tmp_path)
    (found,) = cells.results().values()
    assert found.val_ap == 0.25 and math.isnan(found.step_ms) and found.clipped is None


def test_a_cell_keeps_the_recipe_that_made_it(grid, tmp_path):
    """An experiment that was edited since, or another in its place, is another recipe under the same overrides."""
    cells = keep_a_run(grid, tmp_path)
    text = grid.config.read_text()
    grid.config.write_text(text.replace("root: ", "root: /elsewhere"))
    assert cells.results()
    grid.config.write_text(text.replace("hvflip, batch_size: 4", "hvflip, batch_size: 2"))
    with pytest.raises(ConfigError, match=r"other settings than the grid's \(data\.batch_size is 2 now and was 4\)"):
        cells.results()


@pytest.mark.parametrize("override", ["schedule.max_steps=5", "evaluation.flip=true"])
def test_a_cell_of_other_steps_or_evaluations_is_refused(grid, tmp_path, override):
    cells = keep_a_run(grid, tmp_path)
    other = grid.model_copy(update={"overrides": [*grid.overrides, override]})
    cell = Cell("AP", 0.01, 1)
    record = json.loads((cells.folder / cell.name / "cell.json").read_text())
    record["overrides"].append(override)  # as if the base file said so
    (cells.folder / cell.name / "cell.json").write_text(json.dumps(record))
    with pytest.raises(ConfigError, match=rf"{override.partition('=')[0]} is .* now and was"):
        KeptCells(other, cells.folder).results()


def test_a_cell_of_another_version_is_said_to_be(grid, tmp_path):
    cells = keep_a_run(grid, tmp_path)
    file = cells.folder / Cell("AP", 0.01, 1).name / "cell.json"
    record = json.loads(file.read_text())
    record["config"]["schedule"]["of_tomorrow"] = 1
    file.write_text(json.dumps(record))
    with pytest.raises(ConfigError, match=r"of_tomorrow.*the cell is of another version of this project"):
        cells.results()


def test_a_cell_is_tested_only_when_all_of_its_test_is_kept(grid, tmp_path, monkeypatch):
    cells, cell = KeptCells(grid, tmp_path / "cells"), Cell("AP", 0.01, 1)
    keep(cells, cell, 0.5)
    record = json.loads((cells.folder / cell.name / "cell.json").read_text())
    cells.bundle(tmp_path / "cells.tar.gz")
    there = KeptCells(grid, tmp_path / "there" / "cells")
    keep(there, cell, 0.5)  # untested so far
    (there.folder / cell.name / "matches.npz").unlink()
    (there.folder / cell.name / "cell.json").write_text(json.dumps(record | {"test": None}))
    written, plain = [], cells_module.write_atomically

    def die_at_the_last(path, write):
        written.append(path.name)
        if len(written) == 3:
            raise OSError(28, "No space left on device")
        plain(path, write)

    monkeypatch.setattr(cells_module, "write_atomically", die_at_the_last)
    with pytest.raises(OSError, match="No space"):
        there.merge(tmp_path / "cells.tar.gz")
    monkeypatch.undo()
    assert not there.has(cell, tested=True)
    assert there.merge(tmp_path / "cells.tar.gz") == 1 and there.has(cell, tested=True)
    assert there.results()[cell].test == record["test"]


@pytest.mark.parametrize("file", ["cell.json", "metrics.jsonl"])
def test_damaged_cells_are_one_line(grid, tmp_path, file):
    cells = all_kept(grid, tmp_path / "a")
    (cells.folder / Cell("AP", 0.01, 2).name / file).write_text("{}\n")
    with pytest.raises(DatasetError, match="remove it to run it again"):
        cells.results()


@pytest.mark.parametrize("harm", [b"", None])
def test_damaged_matches_and_bundles_are_one_line(grid, tmp_path, harm):
    """Cut to nothing, or one byte changed, anywhere, which the packing may find before its check sum does."""
    cells, cell = all_kept(grid, tmp_path / "a"), Cell("AP", 0.01, 2)
    cells.bundle(tmp_path / "cells.tar.gz")
    there = KeptCells(grid, tmp_path / "b" / "cells")
    for path, read in (
        (cells.folder / cell.name / "matches.npz", lambda: cells.matches(cell)),
        (tmp_path / "cells.tar.gz", lambda: there.merge(tmp_path / "cells.tar.gz")),
    ):
        whole, failed = path.read_bytes(), 0
        for place in range(0, len(whole), len(whole) // 50):
            changed = whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :]
            path.write_bytes(changed if harm is None else harm)
            try:
                read()
            except (ConfigError, DatasetError):
                failed += 1
        assert failed > 20


def test_draws_of_images_without_objects_say_nothing(grid, tmp_path, monkeypatch):
    cells = all_kept(grid, tmp_path / "a")
    values = iter([0.5, 0.4, math.nan, 0.6])
    monkeypatch.setattr(claims, "bootstrap_means", lambda runs, draws: np.array([next(values), next(values)]))
    (claim,) = claims_of(cells, "tiny", draws=2)  # .5 less NaN, .4 less .6
    assert claim.bootstrap == pytest.approx((-0.2, -0.2)) and claim.bootstrap_p == 1.0
    monkeypatch.setattr(claims, "bootstrap_means", lambda runs, draws: np.full(2, math.nan))
    with pytest.raises(ConfigError, match="no objects"):
        list(claims_of(cells, "tiny", draws=2))


def test_two_grids_of_one_name_are_two(grid, tmp_path):
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        all_kept(grid, folder)
        shutil.copy(tmp_path / "grid.yaml", folder)
        shutil.copy(tmp_path / "tiny.yaml", folder)
    pairs = [f"{folder / 'grid.yaml'}={folder}" for folder in folders]
    line = [sys.executable, ROOT / "scripts/claims.py", "--draws", "20", "--grid"]
    both = subprocess.run([*line, *pairs], capture_output=True, text=True)
    assert both.returncode == 0 and both.stdout.count("| aLRP – AP | 3 |") == 2 and f"| {pairs[1]} |" in both.stdout
    twice = subprocess.run([*line, pairs[0], *pairs], capture_output=True, text=True)
    assert twice.returncode == 2 and twice.stderr.startswith("error: ") and "given twice" in twice.stderr


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
