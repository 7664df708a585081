"""Wheel and sdist as they would be published: complete, described, and enough to train torchvision's RetinaNet."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import losses

pytest.importorskip("setuptools", minversion="77", reason="pip would have to download what builds the package")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
BUILD = "from setuptools import build_meta as b; print(b.build_sdist('dist'), b.build_wheel('dist'))"
TRAINING = """
import json, re, sys
from pathlib import Path
import torch, torchvision
import alrp
sys.path.insert(0, sys.argv[2])
from documented import image_and_target
page = (Path(sys.argv[1]) / "docs/adapters/torchvision.md").read_text()
exec(re.findall(r"```python\\n(.*?)```", page, re.DOTALL)[0])
torch.manual_seed(0)
backbone = torch.nn.Sequential()
for inputs, outputs in ((3, 16), (16, 32), (32, 32)):
    backbone.extend([torch.nn.Conv2d(inputs, outputs, 3, 2, 1), torch.nn.GroupNorm(8, outputs), torch.nn.ReLU()])
backbone.out_channels = 32
anchors = torchvision.models.detection.anchor_utils.AnchorGenerator(((12, 16, 20),), ((0.5, 1.0, 2.0),))
model = retinanet(backbone, 2, steps_per_epoch=20)
model.anchor_generator = anchors
model.transform.min_size, model.transform.max_size = (64,), 64
optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
images, targets = zip(*map(image_and_target, range(4)))
history = []
for _ in range(50):
    parts = model(list(images), list(targets))
    optimizer.zero_grad()
    sum(parts.values()).backward()
    optimizer.step()
    history.append(parts["classification"].item())
print(json.dumps([alrp.__file__, history, model.head.criterion.balance.weight.item()]))
"""


@pytest.fixture(scope="module")
def dist(tmp_path_factory) -> Path:
    """Both distributions, built without a network in a copy: a build leaves folders behind."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("pyproject.toml", "LICENSE", "README.md"):
        shutil.copy(ROOT / name, folder)
    for name in ("losses", "engine", "docs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    built = subprocess.run([sys.executable, "-c", BUILD], cwd=folder, check=True, capture_output=True, text=True)
    assert "warning: no" not in built.stderr.lower() and "deprecat" not in built.stderr.lower(), built.stderr
    return folder / "dist"


@pytest.fixture(scope="module")
def site(dist, tmp_path_factory) -> Path:
    """Where the wheel is installed, for a Python that has torch."""
    folder = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", folder]
    subprocess.run([*pip, *dist.glob("*.whl")], check=True)
    return folder


def test_both_have_the_one_version_and_twine_finds_no_fault(dist):
    names = sorted(path.name for path in dist.iterdir())
    assert names == [f"alrp-{losses.__version__}-py3-none-any.whl", f"alrp-{losses.__version__}.tar.gz"]
    assert re.findall(r"\d+\.\d+\.\d+", (ROOT / "CHANGELOG.md").read_text())[0] == losses.__version__
    if importlib.util.find_spec("twine") is None:
        pytest.skip("twine is not installed")
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *dist.iterdir()], check=True)


def test_the_sdist_builds_the_same_wheel(dist, tmp_path):
    with tarfile.open(next(dist.glob("*.tar.gz"))) as sdist:
        sdist.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    subprocess.run([sys.executable, "-c", BUILD], cwd=folder, check=True, capture_output=True)
    first, second = (zipfile.ZipFile(next(path.glob("*.whl"))) for path in (dist, folder / "dist"))
    assert {i.filename: i.CRC for i in first.infolist()} == {i.filename: i.CRC for i in second.infolist()}


def test_the_installed_wheel_trains_torchvisions_retinanet(site, tmp_path):
    pytest.importorskip("torchvision")
    (tmp_path / "training.py").write_text(TRAINING)
    (tmp_path / "documented.py").write_text(
        (ROOT / "tests/losses/documented.py").read_text().replace("import losses\n", "import alrp as losses\n")
    )
    environment = os.environ | {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "training.py", str(ROOT), str(tmp_path)]
    run = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
    file, history, weight = json.loads(run.stdout.splitlines()[-1])
    assert Path(file).is_relative_to(site)
    assert len(history) == 50 and history[-1] < history[0] / 2 and weight != 50
