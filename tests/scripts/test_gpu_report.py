"""scripts/gpu_report.sh and its parts at the smallest sizes, on the CPU: that it runs, not what it measures."""

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import torch
from PIL import Image

from data import CocoDetection

pytest.importorskip("torchvision")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from benchmarks import loss_device, whole_runs
from benchmarks.coco_like import make_coco_like
from benchmarks.loss_batches import drawn_batches, network_batches

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("generated")
    make_coco_like(folder / "data", {"train": 4, "few": 2, "val": 3})
    return folder


@pytest.fixture
def report(tmp_path):
    """report(*arguments) -> the finished process; results go to tmp_path/report."""

    def run(*arguments: str) -> subprocess.CompletedProcess:
        line = ["bash", "scripts/gpu_report.sh", "--output", str(tmp_path / "report"), *arguments]
        environment = os.environ | {"ALRP_PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": ""}
        return subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900, check=False)

    return run


def test_generated_images_are_of_cocos_kind(images):
    dataset = CocoDetection(images / "data", "val")
    assert len(dataset) == 3 and len(dataset.class_names) == 80
    for index in range(3):
        image, target = dataset[index]
        assert image.shape == (3, 480, 640) and len(target["boxes"]) == 7
        with Image.open(dataset.path(index)) as file:
            assert file.format == "JPEG"
    texts = [(images / f"data/annotations/instances_{split}.json").read_bytes() for split in ("train", "val")]
    assert json.loads(texts[0])["annotations"][:3] != json.loads(texts[1])["annotations"][:3]


def test_drawn_batches_are_as_a_criterion_makes_them():
    batches = drawn_batches("initial", 100, 5000, CPU)
    assert [len(batch.entries) for batch in batches] == [100, 90, 0, 110]
    for batch in batches:
        assert batch.targets.dtype == torch.int8 and len(batch.loc_errors) == len(batch.entries)
        assert torch.equal((batch.targets == 1).nonzero().squeeze(1), batch.entries)


def test_batches_of_a_network_are_what_its_loss_is_given(images):
    found = network_batches(images, CPU, steps=6, small=True)
    assert list(found) == ["first step", "after 6 steps"]
    for batches in found.values():
        assert [len(batch.entries) > 0 for batch in batches] == [True, True, False, True]
        for batch in batches:
            assert torch.equal((batch.targets == 1).nonzero().squeeze(1), batch.entries)
            assert batch.loc_errors.shape == batch.entries.shape and not batch.logits.requires_grad
    first, later = ([batch.logits for batch in batches] for batches in found.values())
    assert all(a.shape == b.shape and not torch.equal(a, b) for a, b in zip(first, later, strict=True))


def test_every_loss_is_measured_on_every_batch(monkeypatch):
    monkeypatch.setattr(loss_device, "ROUNDS", 1)
    steps, seen = dict(loss_device.STEPS), []

    def step(loss):
        return lambda logits, batch, errors: (
            seen.append((loss, len(batch.entries))) or steps[loss](logits, batch, errors)
        )

    monkeypatch.setattr(loss_device, "STEPS", {loss: step(loss) for loss in steps})
    rows = loss_device.measure(drawn_batches("mid-training", 20, 2000, CPU), every_loss=True)
    assert {(row["loss"], row["by"]) for row in rows} == {
        *(("copy", ""), ("torchvision focal", ""), ("aLRP", "PyTorch")),
        *((loss, "Triton") for loss in ("aLRP", "AP", "Rank & Sort", "focal")),
    }
    assert set(seen) == {(loss, count) for loss in steps for count in (20, 18, 0, 22)}
    assert all(row["ms"] > 0 for row in rows)


@pytest.mark.slow
def test_eval_is_timed_on_the_images_that_are_named(images):
    (row,) = whole_runs.benchmark_evaluation(images, "cpu", 3, small=True)
    assert row["images"] == 3 and 0 < row["detections per image"] <= 100 and row["seconds"] > 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_report_of_all_parts_is_one_page_and_one_small_archive(report, tmp_path):
    done = report("--tiny", "--minutes", "14")
    page = (tmp_path / "report/page.md").read_text()
    assert done.returncode == 0 and done.stdout.startswith(page)
    parts = ("tests", "loss", "step", "infer", "train", "eval", "profile")
    for part in parts:
        status = (tmp_path / f"report/{part}.status").read_text()
        assert f"## {part}: {status}" in page and (status.startswith("done") or part == "tests"), page
    archive = tmp_path / "report.tar.gz"
    assert archive.stat().st_size < 16 << 20
    with tarfile.open(archive) as files:
        assert {"report/page.md", "report/loss.json", "report/train.json"} <= set(files.getnames())


def test_what_the_minutes_do_not_reach_is_named(report, tmp_path):
    done = report("--tiny", "--minutes", "0", "loss", "profile")
    assert done.returncode == 0 and "## loss: not reached" in done.stdout and "## profile: not reached" in done.stdout
    with tarfile.open(tmp_path / "report.tar.gz") as files:
        assert "report/page.md" in files.getnames()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["speed"], "speed: no part or option"),
        (["--minutes", "soon"], "--minutes soon: must be a whole number"),
        (["--minutes"], "--minutes needs a value"),
    ],
)
def test_mistakes_are_one_line(report, tmp_path, arguments, words):
    done = report(*arguments)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and f"error: {words}" in done.stderr
    assert not (tmp_path / "report").exists()


def test_nothing_is_overwritten(report, tmp_path):
    (tmp_path / "report").mkdir()
    done = report("--tiny", "loss")
    assert done.returncode == 2 and "exists; choose another --output" in done.stderr
