"""Ablations: the grid, the choice of settings, and the statistics of the table."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from engine.metrics.coco_metrics import match_detections, metrics_of
from engine.run.config import ConfigError
from engine.tools.ablation import (
    METRICS,
    Cell,
    Result,
    ap_at,
    chosen_cells,
    csv_rows,
    load_grid,
    markdown_table,
    paired_difference,
    score_iou_correlation,
    search_cells,
)

ROOT = Path(__file__).resolve().parents[3]
GRID = """
config: tiny.yaml
learning_rates: [0.01, 0.02]
seeds: [0, 1, 2]
reference: aLRP
variants: {aLRP: [], "Focal + GIoU": [loss.name=focal, loss.box_loss=giou]}
"""


@pytest.fixture
def grid(tmp_path):
    (tmp_path / "grid.yaml").write_text(GRID)
    return load_grid(tmp_path / "grid.yaml")


def result(cell, val_ap, test_ap=None):
    test = None if test_ap is None else dict.fromkeys(METRICS, 0.5) | {"AP": test_ap}
    return cell, Result(cell, [{"epoch": 1, "AP": val_ap}], test, 100.0)


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
    assert len(rows) == 1 + 8 and sum(row[3] for row in rows[1:]) == 6


def test_a_variant_without_a_finished_run_is_left_out(grid):
    found = dict(result(cell, 0.1, 0.3) for cell in search_cells(grid) if cell.variant == "aLRP")
    assert {cell.variant for cell in chosen_cells(grid, found)} == {"aLRP"}
    assert "Focal" not in markdown_table(grid, found)


def test_intervals_are_students():
    assert paired_difference([1.0], [0.5]) == (0.5, None)
    mean, half_width = paired_difference([1.0, 3.0], [0.0, 0.0])
    assert (mean, half_width) == pytest.approx((2.0, 12.706 * np.sqrt(2) / np.sqrt(2)), rel=1e-3)
    values = np.arange(21.0)  # 20 degrees of freedom: t = 2.086
    assert paired_difference(values, 0 * values)[1] == pytest.approx(2.086 * values.std(ddof=1) / np.sqrt(21), rel=1e-3)


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
        (("aLRP: []", "aLRP: [], alrp: []"), "rename one"),
        (("config", "{"), "not valid YAML"),
    ],
)
def test_unusable_grids_are_refused(tmp_path, change, message):
    path = tmp_path / "grid.yaml"
    path.write_text(GRID.replace(*change))
    with pytest.raises(ConfigError, match=message):
        load_grid(path)


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
    assert len(rows) == 4 and all(0 <= float(row["AP"]) <= 1 and float(row["step_ms"]) > 0 for row in rows)
    weights = out / "runs" / Cell("aLRP", 0.01, 0).name / "checkpoints" / "last.pt"
    before = weights.stat().st_mtime_ns
    again = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == 0 and weights.stat().st_mtime_ns == before
    assert {name: (out / name).read_bytes() for name in written} == written
