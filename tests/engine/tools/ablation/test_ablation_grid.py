"""Ablations: the grid, the choice of settings, and the statistics of the table."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ablation_grids import GRID, result

import scripts.ablation as script
from engine.metrics.coco_metrics import match_detections, metrics_of
from engine.run.config import ConfigError, load_config
from engine.tools.ablation.choice import chosen_cells, chosen_rate, rates_at_the_edge, tie_cells
from engine.tools.ablation.grid import Cell, load_grid, search_cells
from engine.tools.ablation.tables import ap_at, csv_rows, markdown_table, score_iou_correlation

ROOT = Path(__file__).resolve().parents[4]


def test_settings_are_chosen_on_val_and_compared_over_the_seeds(grid):
    found = dict(result(cell, val_ap=0.1 * cell.learning_rate / 0.01, test_ap=0.9) for cell in search_cells(grid))
    chosen = chosen_cells(grid, found)
    assert [(cell.variant, cell.learning_rate, cell.seed) for cell in chosen] == [
        (variant, 0.02, seed) for variant in ("aLRP", "Focal + GIoU") for seed in (0, 1, 2)
    ]
    assert grid.size == 8
    aps = {"aLRP": (0.50, 0.52, 0.54), "Focal + GIoU": (0.47, 0.50, 0.50)}
    found |= dict(result(cell, 0.2, aps[cell.variant][cell.seed]) for cell in chosen)
    table = markdown_table(grid, found).splitlines()
    assert table[2].startswith("| aLRP | 0.02 | 3 | 0.520 ± 0.020 |")
    # differences -.03, -.02, -.04: sd .01, t = 4.303
    assert "| -0.030 ± 0.025 |" in table[3]
    rows = csv_rows(grid, found)
    assert len(rows) == 1 + 8 and sum(row[4] for row in rows[1:]) == 6


def test_a_variant_without_a_finished_run_is_left_out(grid):
    found = dict(result(cell, 0.1, 0.3) for cell in search_cells(grid) if cell.variant == "aLRP")
    assert {cell.variant for cell in chosen_cells(grid, found)} == {"aLRP"}
    assert "Focal" not in markdown_table(grid, found)


def test_rates_may_be_searched_by_runs_of_their_own(searched):
    cells = search_cells(searched)
    assert len(cells) == 6 and {cell.seed for cell in cells} == {0} and all(cell.of_search for cell in cells)
    assert cells[0].name == "search_alrp_lr0.01_seed0" and searched.size == 2 * (3 + 3)
    aps = {0.01: 0.305, 0.02: 0.31, 0.04: 0.2}
    found = dict(result(cell, aps[cell.learning_rate]) for cell in cells)
    assert [(cell.learning_rate, cell.seed) for cell in tie_cells(searched, found) if cell.variant == "aLRP"] == [
        (0.02, 7),
        (0.01, 7),
    ]
    assert chosen_rate(searched, "aLRP", found) == 0.02
    second = {0.01: 0.4, 0.02: 0.3}  # means .3525 and .305
    found |= dict(result(cell, second[cell.learning_rate]) for cell in tie_cells(searched, found))
    assert chosen_rate(searched, "aLRP", found) == 0.01
    assert [cell.name for cell in chosen_cells(searched, found)][:2] == ["alrp_lr0.01_seed0", "alrp_lr0.01_seed1"]
    assert rates_at_the_edge(searched, found) == {"aLRP": 0.01, "Focal + GIoU": 0.01}


def test_rates_that_tie_are_compared_on_the_seeds_that_all_have(searched):
    searched = searched.model_copy(update={"search": searched.search.model_copy(update={"seeds": [0, 1, 2]})})
    aps = {0.01: {0: 0.500, 2: 0.560}, 0.02: {0: 0.505, 1: 0.490, 2: 0.560}}  # 0.01 diverged once
    found = dict(
        result(Cell("aLRP", rate, seed, True), value) for rate, values in aps.items() for seed, value in values.items()
    )
    assert chosen_rate(searched, "aLRP", found) == 0.02


def test_a_rate_that_leads_clearly_needs_no_second_seed(searched):
    aps = {0.01: 0.2, 0.02: 0.31, 0.04: 0.29}
    found = dict(result(cell, aps[cell.learning_rate]) for cell in search_cells(searched))
    assert tie_cells(searched, found) == [] and rates_at_the_edge(searched, found) == {}


@pytest.fixture
def mixed(tmp_path):
    variants = '"Focal + GIoU": {config: other/own.yaml, overrides: [loss.name=focal], learning_rates: [0.1, 0.2, 0.3]}'
    text = GRID[: GRID.index('"Focal')] + variants + "}\n"
    (tmp_path / "grid.yaml").write_text(text)
    return load_grid(tmp_path / "grid.yaml")


def test_a_variant_may_have_rates_of_its_own(mixed):
    rates = [(cell.variant, cell.learning_rate) for cell in search_cells(mixed)]
    focal = "Focal + GIoU"
    assert rates == [("aLRP", 0.01), (focal, 0.1), ("aLRP", 0.02), (focal, 0.2), (focal, 0.3)]
    assert mixed.size == len(rates) + 2 * 2
    found = dict(result(cell, val_ap=0.3 - abs(cell.learning_rate - 0.2)) for cell in search_cells(mixed))
    assert [cell.learning_rate for cell in chosen_cells(mixed, found)] == [0.02] * 3 + [0.2] * 3
    assert rates_at_the_edge(mixed, found) == {"aLRP": 0.02}


def test_a_variant_may_be_of_another_experiment(mixed, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "tiny.yaml").write_text("data: {batch_size: 2}")
    (tmp_path / "other/own.yaml").write_text("data: {batch_size: 4}")
    configs = {cell.variant: mixed.cell_config(cell, tmp_path)[1] for cell in search_cells(mixed)}
    assert [(config.data.batch_size, config.loss.name) for config in configs.values()] == [(2, "alrp"), (4, "focal")]


TWINS = {
    "aLRP": "alrp",
    "Focal Loss": "focal",
    "DR Loss": "dr",
    "FreeAnchor": "freeanchor",
    "FCOS": "fcos",
    "Faster R-CNN": "faster_rcnn",
    "Faster R-CNN, GIoU": "faster_rcnn_giou",
    "Faster R-CNN + aLRP": "faster_rcnn_alrp",
    "CenterNet in small": "centernet",
}


def test_the_systems_of_table_1_are_compared_as_they_are_shipped(tmp_path):
    grid = load_grid(ROOT / "configs/ablations/table1_bccd.yaml")
    assert grid.variants.keys() - TWINS.keys() == {"AP Loss", "FCOS + aLRP", "FCOS + aLRP, centreness"}
    for variant, name in TWINS.items():
        twin = load_config(ROOT / f"configs/bccd_r18_{name}.yaml", ["model.score_thresh=0.0"])
        assert twin.optimizer.lr in grid.rates(variant), variant
        _, config = grid.cell_config(Cell(variant, twin.optimizer.lr, seed=0), tmp_path)
        of_run = config.run.model_copy(update={"dir": twin.run.dir, "name": twin.run.name})
        assert config.model_copy(update={"run": of_run}) == twin, variant


def detections_on(boxes_and_scores):
    """One class, an object of 10 by 10 pixels in each image, and a detection of it that is shifted."""
    images = [{"id": i} for i in range(1, len(boxes_and_scores) + 1)]
    truth = {
        "images": images,
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": [{"image_id": image["id"], "category_id": 1, "bbox": [0, 0, 10, 10]} for image in images],
    }
    results = [
        {"image_id": image["id"], "category_id": 1, "bbox": [shift, 0, 10, 10], "score": score}
        for image, (shift, score) in zip(images, boxes_and_scores, strict=True)
    ]
    return truth, results


def test_correlation_is_of_the_true_positives(tmp_path):
    shifts_and_scores = [(0, 0.9), (1, 0.5), (2, 0.7), (3, 0.2), (9, 0.95)]  # the last one misses
    truth, results = detections_on(shifts_and_scores)
    file = tmp_path / "truth.json"
    file.write_text(json.dumps(truth))
    matches = match_detections(file, results)
    ious = [(10 - shift) / (10 + shift) for shift, _ in shifts_and_scores[:4]]
    expected = np.corrcoef([score for _, score in shifts_and_scores[:4]], ious)[0, 1]
    assert score_iou_correlation(matches) == pytest.approx(expected)
    metrics = metrics_of(matches)
    assert ap_at(matches, 0.5) == pytest.approx(metrics["AP50"]) and ap_at(matches, 0.75) == metrics["AP75"]
    assert np.isnan(score_iou_correlation(match_detections(file, results[:1])))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("reference: aLRP", "reference: other"), "none of the variants"),
        (("seeds: [0, 1, 2]", "seeds: []"), "seeds"),
        (("seeds:", "sedes:"), "seeds"),
        (("aLRP: []", "aLRP: [], alrp: []"), "two cells would be called alrp_"),
        (("seeds: [0, 1, 2]", "seeds: [0, 0]"), "seed0: rates and seeds must differ"),
        (("aLRP: []", "aLRP: {lr: [0.1]}"), r"variants\.aLRP\.lr"),
        (("config", "{"), "not valid YAML"),
        (("reference: aLRP", "reference: aLRP\nclaims: [aLRP]"), "claims"),
    ],
)
def test_unusable_grids_are_refused(tmp_path, change, message):
    path = tmp_path / "grid.yaml"
    path.write_text(GRID.replace(*change))
    with pytest.raises(ConfigError, match=message):
        load_grid(path)


def test_a_grid_whose_cells_have_no_test_split_does_not_begin(write_config, tmp_path, call, capsys):
    write_config(tmp_path)
    (tmp_path / "grid.yaml").write_text(GRID)
    arguments = ("--grid", tmp_path / "grid.yaml", "--output", tmp_path / "out")
    with pytest.raises(SystemExit) as end:
        call(script, *arguments)
    assert (
        end.value.code == 2 and "data.test_split is null" in capsys.readouterr().err and not (tmp_path / "out").exists()
    )
    assert call(script, *arguments, "--report") == 0 and "0 of" in capsys.readouterr().out


@pytest.mark.slow
def test_a_grid_runs_reports_and_continues(write_config, tmp_path):
    config = write_config(tmp_path)
    config.write_text(config.read_text().replace("val_split: val", "val_split: val, test_split: val"))
    (tmp_path / "grid.yaml").write_text(GRID.replace("0.01, 0.02", "0.01").replace("[0, 1, 2]", "[0, 1]"))
    line = [sys.executable, "scripts/ablation.py", "--grid", tmp_path / "grid.yaml", "--output", tmp_path / "out"]
    first = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert first.returncode == 0, first.stderr
    out = tmp_path / "out"
    assert first.stdout.startswith("| loss |") and "4 of 4 cells" in first.stdout
    written = {name: (out / name).read_bytes() for name in ("table.md", "results.csv")}
    assert all((out / name).stat().st_size > 5000 for name in ("ap.png", "training.png", "gradient_mass.png"))
    rows = list(csv.DictReader((out / "results.csv").open()))
    assert len(rows) == 4 and all(
        row["of"] == "final" and 0 <= float(row["AP"]) <= 1 and float(row["step_ms"]) > 0 for row in rows
    )
    bundle = tmp_path / "cells.tar.gz"
    weights = out / "runs" / Cell("aLRP", 0.01, 0).name / "checkpoints" / "last.pt"
    before = weights.stat().st_mtime_ns
    again = subprocess.run([*line, "--bundle", bundle], cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == 0 and weights.stat().st_mtime_ns == before
    assert {name: (out / name).read_bytes() for name in written} == written
    assert bundle.stat().st_size < 1 << 16
    line[-1] = tmp_path / "elsewhere"
    merged = subprocess.run([*line, "--merge", bundle], cwd=ROOT, capture_output=True, text=True)
    assert merged.returncode == 0 and "4 cells that were not here" in merged.stdout
    assert {name: (tmp_path / "elsewhere" / name).read_bytes() for name in written} == written
    assert not (tmp_path / "elsewhere" / "runs").exists()


@pytest.mark.slow
def test_a_grid_stops_when_its_time_is_over_and_goes_on_later(write_config, tmp_path):
    config = write_config(tmp_path)
    config.write_text(config.read_text().replace("val_split: val", "val_split: val, test_split: val"))
    (tmp_path / "grid.yaml").write_text(GRID.replace("0.01, 0.02", "0.01").replace("[0, 1, 2]", "[0]"))
    line = [sys.executable, ROOT / "scripts/ablation.py", "--grid", "grid.yaml", "--output", "out"]  # from anywhere
    first = subprocess.run([*line, "--minutes", "0.01"], cwd=tmp_path, capture_output=True, text=True)
    assert first.returncode == 0, first.stderr
    assert "the time is over" in first.stdout and "0 of 2 cells" in first.stdout
    second = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
    assert second.returncode == 0 and "2 of 2 cells" in second.stdout
