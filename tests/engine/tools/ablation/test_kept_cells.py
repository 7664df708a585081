"""Cells that are kept: between folders by bundles, refused where they are of another grid or damaged."""

import io
import json
import math
import tarfile
from pathlib import Path

import pytest
from kept_cells import all_kept, keep, write_grid

from data.errors import DatasetError
from engine.run.config import ConfigError
from engine.tools.ablation import cells as cells_module
from engine.tools.ablation.cells import KeptCells
from engine.tools.ablation.grid import Cell

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture
def grid(tmp_path, write_config):
    write_config(tmp_path)
    return write_grid(tmp_path)


def keep_a_run(grid, folder) -> KeptCells:
    """Of one cell, whose run was evaluated once and drew no curves."""
    cells, cell = KeptCells(grid, folder / "cells"), Cell("AP", 0.01, 1)
    _, config = grid.cell_config(cell, folder / "runs")
    run = folder / "runs" / cell.name
    run.mkdir(parents=True)
    (run / "provenance.jsonl").write_text('{"step": 0, "revision": "abc"}\n')
    (run / "metrics.jsonl").write_text('{"epoch": 3, "step": 9, "AP": 0.25}\n')
    cells.keep(cell, config)
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
