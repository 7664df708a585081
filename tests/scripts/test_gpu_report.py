"""scripts/gpu_report.sh and its parts at the smallest sizes, on the CPU: that it runs, not what it measures."""

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch.autograd import DeviceType

from data import CocoDetection

pytest.importorskip("torchvision")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from benchmarks import loss_device, whole_runs
from benchmarks.coco_like import make_coco_like
from benchmarks.device_events import busy_milliseconds, device_events
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
    """report(*arguments, python) -> the finished process; results go to tmp_path/report."""

    def run(*arguments: str, python: str = sys.executable) -> subprocess.CompletedProcess:
        line = ["bash", "scripts/gpu_report.sh", "--output", str(tmp_path / "report"), *arguments]
        environment = os.environ | {"ALRP_PYTHON": python, "CUDA_VISIBLE_DEVICES": ""}
        return subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900, check=False)

    return run


def test_generated_images_are_of_cocos_kind(images):
    dataset = CocoDetection(images / "data", "val_3")
    assert len(dataset) == 3 and len(dataset.class_names) == 80
    for index in range(3):
        image, target = dataset[index]
        assert image.shape == (3, 480, 640) and len(target["boxes"]) == 7
        with Image.open(dataset.path(index)) as file:
            assert file.format == "JPEG"
    texts = [(images / f"data/annotations/instances_{split}.json").read_bytes() for split in ("train_4", "val_3")]
    assert json.loads(texts[0])["annotations"][:3] != json.loads(texts[1])["annotations"][:3]


def test_a_split_is_kept_and_one_of_another_count_is_made_beside_it(tmp_path):
    assert make_coco_like(tmp_path, {"train": 1, "few": 1}) == {"train": "train_1", "few": "few_1"}
    file = tmp_path / "annotations/instances_train_1.json"
    written = file.stat().st_mtime_ns
    assert make_coco_like(tmp_path, {"train": 2, "few": 1}) == {"train": "train_2", "few": "few_1"}
    make_coco_like(tmp_path, {"train": 1})
    assert file.stat().st_mtime_ns == written
    assert [len(CocoDetection(tmp_path, f"train_{count}")) for count in (1, 2)] == [1, 2]


def test_drawn_batches_are_as_a_criterion_makes_them():
    batches = drawn_batches("initial", 100, 5000, CPU)
    assert [len(batch.entries) for batch in batches] == [100, 90, 0, 110]
    for batch in batches:
        assert batch.targets.dtype == torch.int8 and len(batch.loc_errors) == len(batch.entries)
        assert torch.equal((batch.targets == 1).nonzero().squeeze(1), batch.entries)


def test_batches_of_a_network_are_what_its_loss_is_given(images):
    found = network_batches(images, CPU, steps=2, small=True)
    assert list(found) == ["first step", "after 2 steps"]
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
    assert all(row["busy ms"] is row["launches"] is None for row in rows)  # a CPU has none


@pytest.mark.gpu
def test_what_our_kernels_take_the_device_stands_beside_their_time(monkeypatch):
    monkeypatch.setattr(loss_device, "ROUNDS", 1)
    batches = drawn_batches("mid-training", 1000, 1_000_000, torch.device("cuda"))
    for row in loss_device.measure(batches, every_loss=True):
        if row["by"] == loss_device.KERNELS:
            assert row["busy ms"] > 0 and 1 <= row["launches"] < 40
        else:
            assert row["busy ms"] is row["launches"] is None


def test_the_device_is_busy_with_kernels_but_not_with_the_spans_around_them():
    def event(device_type, is_user_annotation, microseconds):
        return SimpleNamespace(
            device_type=device_type, is_user_annotation=is_user_annotation, self_device_time_total=microseconds
        )

    kernels = [event(DeviceType.CUDA, False, 1500), event(DeviceType.CUDA, False, 500)]
    others = [event(DeviceType.CUDA, True, 700), event(DeviceType.CPU, False, 900), event(DeviceType.CPU, True, 30)]
    assert device_events([others[0], kernels[0], others[1], kernels[1], others[2]]) == kernels
    assert busy_milliseconds(kernels) == 2


def test_warnings_of_a_command_are_passed_on(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(whole_runs, "MOST_WARNINGS", 2)
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, warnings\n"
        "print('epoch 1')\n"
        "sys.stderr.write('train: 10%\\rtrain: 20%\\r')\n"
        "for _ in range(2):\n"
        "    print('NMS takes slower operators: no kernel', file=sys.stderr)\n"
        "warnings.warn('the network runs without CUDA graphs: too old')\n"
        "warnings.warn('a third')\n"
        "sys.exit('wrong') if sys.argv[1:] else None\n"
    )
    whole_runs._run(script)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"{script}: NMS takes slower operators: no kernel"
    assert lines[1].endswith("UserWarning: the network runs without CUDA graphs: too old") and len(lines) == 2
    with pytest.raises(SystemExit, match="ended with status 1: wrong"):
        whole_runs._run(script, "fail")
    assert capsys.readouterr().err.splitlines() == lines  # that of a command which fails may say why


@pytest.mark.slow
def test_parts_in_one_folder_take_the_images_that_they_name_and_the_checkpoint_of_the_part_before(images, monkeypatch):
    network_batches(images, CPU, steps=1, small=True)
    (row,) = whole_runs.benchmark_training(images, "cpu", images=6, steps=4, small=True)
    assert row["images/s"] > 0 and row["of the step alone"] > 0
    points = (images / "runs/benchmark/training.jsonl").read_text().splitlines()
    assert [json.loads(point)["epoch"] for point in points] == [0, 0, 1, 1]  # three steps of two images are an epoch
    started, run = [], whole_runs._run
    monkeypatch.setattr(whole_runs, "_run", lambda *line: started.append(line[0]) or run(*line))
    (row,) = whole_runs.benchmark_evaluation(images, "cpu", 3, small=True)
    assert started == ["eval.py"]
    assert row["images"] == 3 and 0 < row["detections per image"] <= 100 and row["seconds"] > 0


@pytest.mark.slow
def test_an_evaluation_without_a_training_before_it_makes_its_checkpoint(tmp_path, monkeypatch):
    started, run = [], whole_runs._run
    monkeypatch.setattr(whole_runs, "_run", lambda *line: started.append(line[0]) or run(*line))
    whole_runs.benchmark_evaluation(tmp_path, "cpu", 3, small=True)
    assert started == ["train.py", "eval.py"]
    assert len(json.loads((tmp_path / "data/annotations/instances_val_3.json").read_text())["images"]) == 3


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
    assert f"Python {sys.version.split()[0]}, torch {torch.__version__}" in done.stdout
    with tarfile.open(tmp_path / "report.tar.gz") as files:
        assert "report/page.md" in files.getnames()


@pytest.mark.parametrize(("status", "processes"), [(0, " -n auto --maxprocesses 8"), (1, "")], ids=["xdist", "none"])
def test_tests_run_in_several_processes_where_xdist_is_there(report, tmp_path, status, processes):
    python = tmp_path / "python"
    python.write_text(
        "#!/usr/bin/env bash\n"
        f'case "$*" in *"import xdist"*) exit {status} ;; *pytest*) echo "ran $*" ;; '
        "*) cat >/dev/null ;; esac"  # what the page begins with, which the test below has
    )
    python.chmod(0o755)
    done = report("--tiny", "tests", python=str(python))
    tests = "tests/losses/test_triton_support.py"
    assert "## tests: done" in done.stdout
    assert f"\n\nran -m pytest -q -m gpu -p no:cacheprovider{processes} {tests}\n" in done.stdout


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
