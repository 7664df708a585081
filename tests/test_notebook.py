"""docs/tour.ipynb: plain code without outputs, which runs from its first cell to its last."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "docs/tour.ipynb"
LINKED = ("train.py", "eval.py", "scripts", "engine", "data", "detector", "losses", "configs")


def code_cells() -> list[str]:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def test_cells_are_python_and_hold_no_outputs():
    document = json.loads(NOTEBOOK.read_text())
    assert document["nbformat"] == 4
    assert len(code_cells()) >= 6
    for cell in code_cells():
        ast.parse(cell)
    assert not any(cell.get("outputs") for cell in document["cells"])


@pytest.mark.slow
@pytest.mark.timeout(900)  # five commands, each of which starts anew
def test_it_runs_from_top_to_bottom(tmp_path):
    for name in LINKED:
        (tmp_path / name).symlink_to(ROOT / name)
    code = "\n".join(code_cells())
    assert "STEPS = 300" in code
    (tmp_path / "tour.py").write_text(
        code.replace("STEPS = 300", "STEPS = 2").replace("--train 300 --val 40", "--train 12 --val 4")
    )
    environment = os.environ | {"MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    result = subprocess.run(
        [sys.executable, "tour.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=850,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "AP50" in result.stdout
    assert (tmp_path / "runs/tour/checkpoints/best.pt").is_file()
