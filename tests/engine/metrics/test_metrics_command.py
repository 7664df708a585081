"""`alrp evaluate` as a user runs it: `python -m engine.metrics.command` in the clone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.metrics import evaluate
from engine.metrics.command import main

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    annotations = {
        "images": [{"id": 1}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "Hündchen 犬"}],
        "annotations": [{"image_id": 1, "category_id": c, "bbox": [0, 0, 50, 50]} for c in (1, 2)],
    }
    detections = [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 50, 40], "score": 0.625}]
    paths = [tmp_path / "truth.json", tmp_path / "found.json"]
    for path, content in zip(paths, (annotations, detections), strict=True):
        path.write_text(json.dumps(content))
    return paths


def options(files: list[Path], *more: object) -> list[str]:
    return ["evaluate", "--annotations", str(files[0]), "--detections", str(files[1]), *map(str, more)]


def test_prints_the_tables_and_writes_the_metrics(files, tmp_path, capsys):
    main(options(files, "--json", tmp_path / "new/metrics.json"))
    printed = capsys.readouterr()
    rows = [line.split() for line in printed.out.splitlines()]
    values = evaluate(*files)["per_class"]["cat"]
    names = ("AP", "oLRP", "lrp_threshold", "lrp_precision", "lrp_recall", "f1_threshold", "f1_precision", "f1_recall")
    assert ["cat", *(f"{values[name]:.3f}" for name in names)] in rows
    assert ["Hündchen", "犬", "0.000", "1.000", *"------"] in rows
    assert max(map(len, printed.out.splitlines()[3:])) <= 80 and printed.err == ""
    assert json.loads((tmp_path / "new/metrics.json").read_text()) == evaluate(*files)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "the following arguments are required: COMMAND"),
        (["evaluate"], 2, "the following arguments are required: --annotations, --detections"),
        (["detect"], 2, "invalid choice: 'detect'"),
        (["evaluate", "--annotations", "none.json", "--detections", "x"], 2, "none.json: cannot be read"),
    ],
)
def test_user_errors_are_one_line(arguments, status, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    printed = capsys.readouterr()
    assert (stopped.value.code, printed.out, printed.err.count("\n")) == (status, "", 1)
    assert printed.err.startswith("error: ") and message in printed.err


def test_inputs_are_never_overwritten(files, tmp_path, capsys):
    before = files[1].read_bytes()
    (tmp_path / "link.json").symlink_to(files[1])
    for output in (files[1], tmp_path / "link.json"):
        with pytest.raises(SystemExit) as stopped:
            main(options(files, "--json", output))
        assert stopped.value.code == 2 and "is an input" in capsys.readouterr().err
    assert files[1].read_bytes() == before


def test_metrics_that_cannot_be_written_are_a_failure(files, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(options(files, "--json", tmp_path))
    assert stopped.value.code == 1 and capsys.readouterr().err.startswith(f"error: {tmp_path}: is a folder; name a")


def run(code: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    line = [sys.executable, *code.split(" ", 1), *arguments]
    environment = os.environ | variables
    return subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_runs_without_torch_and_pycocotools(files):
    arguments = options(files)
    code = f"-c import sys; from engine.metrics.command import main; main({arguments!r}); print(sorted(sys.modules))"
    loaded = run(code)
    assert loaded.returncode == 0, loaded.stderr
    modules = loaded.stdout.splitlines()[-1]
    assert "'numpy'" in modules and not any(f"'{name}'" in modules for name in ("torch", "pycocotools", "matplotlib"))


def test_without_numpy_the_remedy_is_one_line(files):
    start = f"from engine.metrics.command import main; main({options(files)!r})"
    without = run(f"-c import sys; sys.modules['numpy'] = None; {start}")
    assert (without.returncode, without.stdout, without.stderr.count("\n")) == (2, "", 1)
    assert without.stderr.startswith("error: ") and "pip install numpy" in without.stderr


def test_names_that_the_terminal_cannot_show_are_escaped(files):
    shown = run("-m engine.metrics.command", *options(files), PYTHONIOENCODING="ascii")
    assert shown.returncode == 0 and "H\\xfcndchen" in shown.stdout
