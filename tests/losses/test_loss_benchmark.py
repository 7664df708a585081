"""The GPU part of scripts/benchmark.py loss, with a clock and a memory gauge that need no GPU."""

import sys
import time
from pathlib import Path

import pytest
import torch

from losses import triton_support

pytest.importorskip("torchvision")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from benchmarks import loss_cuda


@pytest.fixture
def without_gpu(monkeypatch):
    def milliseconds(run):
        start = time.perf_counter()
        run()
        return 1e3 * (time.perf_counter() - start)

    monkeypatch.setattr(loss_cuda, "milliseconds", milliseconds)
    monkeypatch.setattr(loss_cuda, "peak_memory", lambda run, batch: 1.0)
    monkeypatch.setattr(loss_cuda, "NUM_LOGITS", 3000)
    monkeypatch.setattr(loss_cuda, "POSITIVES", (10, 1000))
    monkeypatch.setattr(loss_cuda, "SCORES", ["mid-training"])
    monkeypatch.setattr(loss_cuda, "REPETITIONS", 1)
    monkeypatch.setattr(loss_cuda, "WARM_UP", 0)
    monkeypatch.setattr(torch.Tensor, "cuda", lambda tensor: tensor)


def test_rows_for_every_loss_and_path(without_gpu):
    rows = loss_cuda.benchmark_loss_cuda()
    cases = {(row["loss"], row["by"]) for row in rows if row["positives"] == 1000}
    ours = {(loss, path) for loss in ("aLRP", "AP", "Rank & Sort", "focal") for path in ("Triton", "PyTorch")}
    assert cases == ours | {("copy", ""), ("torchvision focal", "")}
    assert {(row["logits"], row["scores"], row["positives"]) for row in rows} == {
        (dtype, "mid-training", num) for dtype in ("float32", "bfloat16") for num in (10, 1000)
    }
    assert all(row["ms"] > 0 for row in rows)
    assert all(row["ratio to copy"] == 1 for row in rows if row["loss"] == "copy")


def test_operators_are_measured_without_the_kernels(monkeypatch):
    asked = []
    monkeypatch.setattr(triton_support, "usable", lambda logits: asked.append("kernels") or False)
    batch = loss_cuda.make_batch("initial", 10, 1000)
    loss_cuda.step_of("aLRP", loss_cuda.OPERATORS, batch)()
    assert not asked and batch[0].grad is not None
    loss_cuda.step_of("aLRP", loss_cuda.KERNELS, batch)()
    assert asked
