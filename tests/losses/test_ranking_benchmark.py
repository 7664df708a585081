"""What scripts/benchmark.py ranking compares with: other ways to the same gradient, and limits that mark a cell."""

import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("torchvision")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from benchmarks import ranking
from benchmarks.loss import make_batch

BATCH = tuple(tensor.detach().double() for tensor in make_batch("mid-training", 20, 2000))


@pytest.mark.parametrize("delta", ranking.DELTAS)
@pytest.mark.parametrize("method", ["loop over positives", "P × N"])
@pytest.mark.parametrize("loss", ranking.LOSSES)
def test_comparing_pairs_gives_the_gradient_of_the_exact_ranking(loss, method, delta):
    wanted = ranking.exact_gradient(loss, *BATCH, delta)
    gradient = ranking.METHODS[method](loss, *BATCH, delta)
    assert wanted.any() and (gradient - wanted).abs().max() <= 1e-12 * wanted.abs().max()


@pytest.mark.parametrize("loss", ranking.LOSSES)
def test_buckets_are_exact_for_hard_steps_and_balanced_for_smooth_ones(loss):
    hard = ranking.METHODS["Bucketed"](loss, *BATCH, 1e-9)
    wanted = ranking.exact_gradient(loss, *BATCH, 1e-9)
    of_buckets = [gradient[BATCH[1] == 1] for gradient in (hard, wanted)]
    assert (of_buckets[0] - of_buckets[1]).abs().max() <= 1e-6 * wanted.abs().max()
    smooth = ranking.METHODS["Bucketed"](loss, *BATCH, 1.0)
    assert smooth.any() and smooth.sum().abs() <= 1e-9 * smooth.abs().sum()
    assert (smooth - ranking.exact_gradient(loss, *BATCH, 1.0)).abs().max() > 1e-6 * smooth.abs().max()


@pytest.mark.slow
def test_a_table_of_small_sizes_has_every_method(monkeypatch):
    monkeypatch.setattr(ranking, "LOGITS", (3000,))
    monkeypatch.setattr(ranking, "POSITIVES", (10,))
    monkeypatch.setattr(ranking, "LOSSES", ("aLRP",))
    rows = ranking.benchmark_ranking("cpu")
    assert [row["by"] for row in rows] == list(ranking.METHODS) and {row["reference"] for row in rows} == {"pairs"}
    assert all(row["ms"] > 0 and row["MiB"] >= 0 for row in rows)
    differences = {row["by"]: float(row["difference at δ 1.0"]) for row in rows}
    assert max(value for by, value in differences.items() if by != "Bucketed") < 1e-5 < differences["Bucketed"]


def test_a_cell_over_a_limit_says_which(monkeypatch, tmp_path):
    monkeypatch.setattr(ranking, "START", 0.0)
    monkeypatch.setattr(ranking, "LIMIT", 0.01)
    assert set(ranking.run_cell("AP", "exact", 10, 3000, "cpu", str(tmp_path)).values()) == {"over 0 s"}
    monkeypatch.setattr(ranking, "measure", lambda *arguments: None)  # as where there is no memory
    monkeypatch.setattr(ranking, "START", 60.0)
    monkeypatch.setattr(ranking.multiprocessing, "get_context", lambda _: torch.multiprocessing.get_context("fork"))
    assert set(ranking.run_cell("AP", "P × N", 10, 3000, "cpu", str(tmp_path)).values()) == {"memory"}
