"""What the documents name exists: files, links, and in docs/design the hops and the order of the rooms."""

import ast
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
ARCHITECTURE = ROOT / "docs/design/architecture.md"
OF_THE_READER = ("configs/mine.yaml",)  # files that a document tells its reader to write
PATH = re.compile(r"\b(?:configs|data|detector|docs|engine|losses|scripts|tests)/[\w./-]*\.(?:md|py|sh|yaml)\b")


def prose(path: Path) -> str:
    """A document without its diffs, which name files that they add."""
    return re.sub(r"```diff\n.*?```", "", path.read_text(), flags=re.DOTALL)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_links_exist(path):
    for named in PATH.findall(prose(path)):
        if named not in OF_THE_READER and path.name != "CHANGELOG.md":  # which names what is gone
            assert (ROOT / named).is_file() or (ROOT / "tests" / named).is_file(), named
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", prose(path)):
        assert (path.parent / target).exists(), target


def test_tests_that_prove_reliability_exist():
    """Named by how they begin, the file only where it is another than before: `file.py::test_a_…`, `…test_b_…`."""
    named = re.findall(r"`(?:([\w/]+\.py)::|…)(test_\w+?)_?…?`", (ROOT / "docs/reliability.md").read_text())
    file = ""
    for path, name in named:
        file = path or file
        assert f"\ndef {name}" in (ROOT / "tests" / file).read_text(), f"{file}::{name}"
    assert len(named) > 45


def test_every_document_is_in_the_index():
    index = (ROOT / "docs/README.md").read_text()
    linked = {(ROOT / "docs" / target).resolve() for target in re.findall(r"\]\(([^)#:]+)\)", index)}
    assert {path for path in DOCUMENTS if path.name != "README.md"} <= linked


def test_hops_and_seams_name_what_is_there():
    rows = re.findall(r"`([\w/]+)\.py` \| `([\w.]+)`", ARCHITECTURE.read_text())
    assert len(rows) > 20
    for path, name in rows:
        found = importlib.import_module(path.replace("/", "."))
        for part in name.split("."):
            found = getattr(found, part)


def test_rooms_are_those_whose_imports_are_tested():
    order = re.search(r"^    (run < .*)$", ARCHITECTURE.read_text(), re.MULTILINE)[1].split(" < ")
    tested = re.search(r"^ROOMS = (\(.*?\))", (ROOT / "tests/test_imports.py").read_text(), re.MULTILINE)[1]
    assert tuple(order) == ast.literal_eval(tested)
    assert set(order) == {path.parent.name for path in ROOT.glob("engine/*/__init__.py")}
