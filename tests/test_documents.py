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
            assert (ROOT / named).is_file(), named
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", prose(path)):
        assert (path.parent / target).exists(), target


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


def test_rooms_import_only_what_stands_before_them():
    order = re.search(r"^    (data.* < .*)$", ARCHITECTURE.read_text(), re.MULTILINE)[1].split(" < ")
    place = {room: index for index, rooms in enumerate(order) for room in re.findall(r"[\w/]+", rooms)}
    files = [file for folder in ("data", "detector", "losses", "engine") for file in (ROOT / folder).rglob("*.py")]
    rooms = {file: _room(file.relative_to(ROOT).with_suffix("").parts) for file in files}
    assert {room for room in rooms.values() if room != "engine"} == set(place)
    for file, room in rooms.items():
        for other in _imported_rooms(file):
            if room != "engine" and other != room:  # engine/__init__.py gives names of several rooms
                assert place[other] < place[room], f"{file.relative_to(ROOT)} imports {other}"


def _room(parts: tuple[str, ...]) -> str:
    return "/".join(parts[:2]) if parts[0] == "engine" and len(parts) > 2 else parts[0]


def _imported_rooms(file: Path) -> set[str]:
    modules: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            modules.add(node.module)
        elif isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
    ours = [module.split(".") for module in modules if module.split(".")[0] in ("data", "detector", "engine", "losses")]
    return {"/".join(parts[:2]) if parts[0] == "engine" else parts[0] for parts in ours}
