"""What is installed as `alrp` are folders of this repository that import themselves, relatively, and third parties."""

import ast
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # which pytest needs there

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PYPROJECT["tool"]["setuptools"]
THIRD_PARTIES = {"losses": {"torch", "triton"}, "engine/metrics": {"numpy"}}
LAZY = {"losses": set(), "engine/metrics": {"torch", "torchmetrics", "pycocotools"}}  # of what is loaded by name alone


def imports(file: Path) -> list[tuple[int, str]]:
    """Level (0: absolute) and first name of every import of a file, also of those inside functions."""
    found = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found += [(0, alias.name.split(".")[0]) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.level, (node.module or "").split(".")[0]))
    return found


def strangers(folder: Path, third_parties: set[str]) -> list[str]:
    """Imports that would fail, or find another project's module, where the folder is installed without the others."""
    found = []
    for file in sorted(folder.rglob("*.py")):
        for level, name in imports(file):
            if level:
                known = file.parents[level - 1].is_relative_to(folder)
            else:
                known = name in third_parties | sys.stdlib_module_names
            if not known:
                found.append(f"{file.name}: {'.' * level}{name}")
    return found


def test_every_installed_folder_is_below_one_that_is_checked():
    assert sorted(SETUPTOOLS["package-dir"]) == sorted(SETUPTOOLS["packages"])
    for folder in SETUPTOOLS["package-dir"].values():
        assert any(Path(folder).is_relative_to(checked) for checked in THIRD_PARTIES), folder


@pytest.mark.parametrize("checked", THIRD_PARTIES)
def test_every_folder_below_one_that_is_checked_is_installed(checked):
    folders = {str(file.parent.relative_to(ROOT)) for file in (ROOT / checked).rglob("*.py")}
    assert folders <= set(SETUPTOOLS["package-dir"].values())


@pytest.mark.parametrize("folder, third_parties", THIRD_PARTIES.items())
def test_installed_folders_import_themselves_and_third_parties(folder, third_parties):
    assert len([*(ROOT / folder).rglob("*.py")]) > 3
    assert not strangers(ROOT / folder, third_parties | LAZY[folder])


@pytest.mark.parametrize(
    "line",
    [
        *("import data", "from losses import alrp_loss", "from alrp import alrp_loss", "from .. import run"),
        *("from ..run import clock", "import scipy", "def late():\n    import engine.run"),
    ],
)
def test_other_imports_are_found(line, tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    (package / "module.py").write_text(f"import math\nimport torch.nn\nfrom .other import name\n{line}\n")
    assert len(strangers(package, {"torch"})) == 1


def test_the_package_asks_for_what_it_imports_and_sets_no_upper_bound():
    project = PYPROJECT["project"]
    assert [line.partition(">=")[0] for line in project["dependencies"]] == ["torch"]  # Triton comes with it
    (extra,) = project["optional-dependencies"].values()
    assert {line.partition(">=")[0] for line in extra} == THIRD_PARTIES["engine/metrics"]
    assert not any(sign in line for line in project["dependencies"] + extra for sign in ("==", "<", "~"))
