"""`pip install .` of a copy of the repository, without a network, beside a project whose modules have our names."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import losses

pytest.importorskip("setuptools", minversion="77", reason="pip would have to download what builds the package")

ROOT = Path(__file__).resolve().parents[2]
PIP = [*(sys.executable, "-m", "pip", "--disable-pip-version-check"), *("install", "--quiet", "--no-index")]
PIP += ["--no-build-isolation", "--no-deps"]
LOGITS, TARGETS, LOC_ERRORS = [3.0, 0.5, 2.0, -4.0], [1, 1, 0, -1], [0.2, 0.8]
MAIN = f"""
import json
import sys
from importlib.metadata import requires, version

import alrp

assert "torch" not in sys.modules

import torch

import data
import engine
import losses

parts = alrp.alrp_loss(torch.tensor({LOGITS}), torch.tensor({TARGETS}), torch.tensor({LOC_ERRORS}))
theirs = [data.NAME, engine.NAME, losses.NAME]
required = [line for line in requires("alrp") if "extra" not in line]
print(json.dumps([[part.item() for part in parts], theirs, alrp.__version__, version("alrp"), required, alrp.__file__]))
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """What the package is built from: a build leaves folders behind."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("pyproject.toml", "LICENSE", "README.md"):
        shutil.copy(ROOT / name, folder)
    for name in ("losses", "engine", "detector", "data", "docs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture(scope="module")
def site(copy, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    subprocess.run([*PIP, "--target", folder, copy], check=True)
    return folder


@pytest.fixture
def project(tmp_path) -> Path:
    """A project with modules of its own that have the names of our folders."""
    (tmp_path / "data").mkdir()
    for module in ("data/__init__.py", "engine.py", "losses.py"):
        (tmp_path / module).write_text("NAME = __name__ + ' of the project'\n")
    (tmp_path / "main.py").write_text(MAIN)
    return tmp_path


def run(site: Path, *arguments: str, cwd: Path) -> str:
    environment = os.environ | {"PYTHONPATH": str(site)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, check=True, capture_output=True, text=True
    ).stdout


def assert_is_right(output: str, folder: Path) -> None:
    parts, theirs, version, installed_version, required, file = json.loads(output)
    expected = losses.alrp_loss(torch.tensor(LOGITS), torch.tensor(TARGETS), torch.tensor(LOC_ERRORS))
    assert parts == [part.item() for part in expected]
    assert theirs == [f"{name} of the project" for name in ("data", "engine", "losses")]
    assert version == installed_version == losses.__version__
    assert [line.split(">")[0] for line in required] == ["torch"]
    assert Path(file).is_relative_to(folder)


def test_package_and_project_work_beside_each_other(site, project):
    assert_is_right(run(site, "main.py", cwd=project), site)


@pytest.mark.slow
def test_an_editable_install_does_too(copy, project, tmp_path):
    subprocess.run([*PIP, "--prefix", tmp_path / "prefix", "--editable", copy], check=True)
    (site,) = {file.parent for file in (tmp_path / "prefix").rglob("*.pth")}
    start = f"import runpy, site; site.addsitedir({str(site)!r}); runpy.run_path('main.py')"
    assert_is_right(run(project, "-c", start, cwd=project), copy)


def test_the_metrics_import_no_torch(site, project):
    start = "import sys, alrp.metrics; print(alrp.metrics.__file__); assert 'torch' not in sys.modules"
    assert Path(run(site, "-c", start, cwd=project).strip()).is_relative_to(site / "alrp")


def test_only_the_one_name_and_its_files_are_installed(site):
    assert sorted(path.name for path in site.iterdir()) == ["alrp", f"alrp-{losses.__version__}.dist-info", "bin"]
    assert [path.name for path in (site / "bin").iterdir()] == ["alrp"]
    files = {str(file.relative_to(site / "alrp")) for file in (site / "alrp").rglob("*")}
    sources = {ROOT / "losses": Path(), ROOT / "engine/metrics": Path("metrics")}
    for source, where in sources.items():
        for file in source.rglob("*.py"):
            assert str(where / file.relative_to(source)) in files
    assert {"py.typed", "metrics/py.typed"} <= files
