"""The arrows between the folders: every import of the repository, read from its source, points to the left."""

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("run", "metrics", "evaluation", "reporting", "diagnosis", "training", "tools")  # of engine/, left to right
OURS = ("losses", "detector", "data", "engine", "scripts", "tests", "benchmarks", "train", "eval")
MAY_IMPORT = {
    "losses": (),
    "detector": ("losses",),
    "data": (),
    "engine": ("losses", "detector", "data"),
    "scripts": ("losses", "detector", "data", "engine", "benchmarks", "train", "eval"),
    "train": ("data", "engine"),
    "eval": ("data", "engine"),
}
INSTALLED = ("losses", "engine/metrics")  # under other names, so that they import themselves relatively


def sources() -> list[Path]:
    folders = ("losses", "detector", "data", "engine", "scripts")
    files = [
        ROOT / "train.py",
        ROOT / "eval.py",
        *(path for folder in folders for path in ROOT.glob(f"{folder}/**/*.py")),
    ]
    assert len(files) > 100
    return files


def imports(path: Path) -> list[tuple[str, int]]:
    """(module, level) of every import in a file, those inside functions included."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(alias.name, 0) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.module or "", node.level))
            if node.level == 0 and node.module in ("engine", "data"):  # `from engine import load_detector` or a room
                found += [(f"{node.module}.{alias.name}", 0) for alias in node.names]
    return found


def may_enter(room: str, of: str) -> bool:
    return room in ROOMS and ROOMS.index(room) <= ROOMS.index(of)


def complaints(path: Path) -> list[str]:
    """Imports of a file that point the wrong way."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    installed = "/".join(parts).startswith(INSTALLED)
    wrong = []
    for module, level in imports(path):
        words = module.split(".")
        if level:
            continue
        if words[0] == "alrp":
            wrong.append(f"{module}: the repository imports its own folders, not the package made of them")
        elif words[0] in OURS and installed:
            wrong.append(f"{module}: this folder is installed by itself and imports itself relatively")
        elif words[0] in OURS and words[0] not in (*MAY_IMPORT[parts[0]], parts[0]):
            wrong.append(f"{module}: {parts[0]} does not import {words[0]}")
        elif (
            module.startswith("engine.")
            and parts[0] == "engine"
            and len(parts) > 2
            and not may_enter(words[1], parts[1])
        ):
            wrong.append(f"{module}: not to the left of engine/{parts[1]}")
    return wrong


def test_imports_point_to_the_left():
    wrong = {str(path.relative_to(ROOT)): complaints(path) for path in sources()}
    assert {name: found for name, found in wrong.items() if found} == {}


def test_relative_imports_stay_in_their_package():
    for path in sources():
        depth = len(path.relative_to(ROOT).parts) - 1
        home = next((len(Path(folder).parts) for folder in INSTALLED if path.is_relative_to(ROOT / folder)), 1)
        for module, level in imports(path):
            assert level <= depth - home + 1, f"{path}: {'.' * level}{module}"


def test_wrong_arrows_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    for name, line, complaint in (
        ("losses/a.py", "from detector.boxes import clip_boxes", "installed by itself"),
        ("engine/metrics/a.py", "import data", "installed by itself"),
        ("detector/a.py", "import data.images", "detector does not import data"),
        ("data/a.py", "def f():\n    from engine import load_config", "data does not import engine"),
        ("engine/run/a.py", "from engine.training.trainer import Trainer", "not to the left of engine/run"),
        ("engine/evaluation/a.py", "from engine import reporting", "not to the left of engine/evaluation"),
        ("engine/tools/a.py", "from scripts.predict import main", "engine does not import scripts"),
        ("scripts/a.py", "import alrp", "imports its own folders"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(line)
        assert any(complaint in each for each in complaints(tmp_path / name)), name
