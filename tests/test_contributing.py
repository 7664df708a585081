"""The diffs of CONTRIBUTING.md apply to this tree, and what they add trains, evaluates and resumes."""

import json
import os
import re
import shutil
import subprocess
import sys
from functools import partial
from itertools import takewhile
from pathlib import Path

import pytest

from data.synthetic.shapes import generate_shapes

ROOT = Path(__file__).resolve().parents[1]
DIFFS = re.findall(r"```diff\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
SMALL = [
    *("data.generate=null", "data.test_split=null", "data.image_size=64", "data.batch_size=4", "data.workers=0"),
    *("model.score_thresh=0.0", "run.device=cpu", "run.precision=float32", "run.log_every=1"),
]
# several commands in one process: PyTorch is imported once
COMMANDS = """
import json, runpy, sys
sys.path.insert(0, "")
for command in json.loads(sys.argv[1]):
    sys.argv = command
    try:
        runpy.run_path(command[0], run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise
"""


def run(tree: Path, *commands: list[str]) -> str:
    """Runs commands in a tree; what they print to stdout."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    line = [sys.executable, "-c", COMMANDS, json.dumps(commands)]
    ended = subprocess.run(line, cwd=tree, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return ended.stdout


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """A copy of this tree with all diffs applied, in the order of the document."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs git and a clone, to know which files belong to the project")
    files = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(files, cwd=ROOT, capture_output=True, text=True, check=True)
    folder = tmp_path_factory.mktemp("tree")
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file() and not name.startswith(("docs/", "tests/")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    outside = os.environ | {"GIT_CEILING_DIRECTORIES": str(folder.parent)}  # no repository: else git skips the files
    for diff in DIFFS:
        applied = subprocess.run(["git", "apply", "-"], cwd=folder, env=outside, input=diff, text=True, check=False)
        if applied.returncode != 0:
            apply_beside(folder, diff)
    return folder


def around(lines: list[str], before: list[str], after: list[str], place: int) -> int:
    """How many lines directly before and behind a place are as in a diff."""
    above = zip(reversed(lines[:place]), reversed(before), strict=False)
    below = zip(lines[place:], after, strict=False)
    return sum(sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], side)) for side in (above, below))


def apply_beside(folder: Path, diff: str) -> None:
    """Applies a diff that only adds lines where others have been added beside its own, as to a table of losses: git
    wants all lines around to be as they were."""
    for name, body in re.findall(r"^\+\+\+ b/(.*)\n((?:[@+ ].*\n)+)", diff, re.MULTILINE):
        path = folder / name
        lines = path.read_text().splitlines() if path.exists() else []
        for hunk in re.split(r"^@@ .*\n", body, flags=re.MULTILINE)[1:]:
            before, added, after = re.fullmatch(r"((?: .*\n)*)((?:\+.*\n)*)((?: .*\n)*)", hunk).groups()
            before, added, after = ([line[1:] for line in part.splitlines()] for part in (before, added, after))
            place = max(range(len(lines) + 1), key=partial(around, lines, before, after))
            assert around(lines, before, after, place) >= min(2, len(before + after)), f"{name}: no place for\n{hunk}"
            lines[place:place] = added
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n")


def test_they_apply_beside_what_a_contributor_has_added(tree, tmp_path):
    for name in ("losses/table.py", "detector/families.py"):
        (tmp_path / name).parent.mkdir()
        shutil.copy(ROOT / name, tmp_path / name)
    table = tmp_path / "losses/table.py"
    table.write_text(
        table.read_text().replace("        CenterNetLoss,\n", "        CenterNetLoss,\n        OwnLoss,\n")
    )
    families = tmp_path / "detector/families.py"
    families.write_text(families.read_text().replace('    "dr",\n)', '    "dr",\n    "own",\n)'))
    for diff in DIFFS:
        apply_beside(tmp_path, diff)
    for name, own in (("losses/table.py", "        OwnLoss,\n"), ("detector/families.py", '    "own",\n')):
        assert (tmp_path / name).read_text().replace(own, "") == (tree / name).read_text()
    assert (tmp_path / "losses/zero.py").read_bytes() == (tree / "losses/zero.py").read_bytes()


def test_there_is_a_diff_for_a_loss_a_family_and_a_format(tree):
    assert len(DIFFS) == 3
    for added in ("losses/zero.py", "detector/blank/blank.py", "data/formats/csv_boxes.py"):
        assert (tree / added).is_file() and not (ROOT / added).exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["zero", "blank"])
def test_what_a_diff_adds_trains_evaluates_and_resumes(tree, tmp_path, name):
    generate_shapes(tmp_path / "shapes", {"train": 12, "val": 6}, image_size=64, seed=1)
    train = ["train.py", "--config", f"configs/quickstart_{name}.yaml", *SMALL]
    train += [f"data.root={tmp_path}/shapes", f"run.dir={tmp_path}/runs", "run.name=run"]
    last = tmp_path / "runs/run/checkpoints/last.pt"
    printed = run(
        tree,
        [*train, "schedule.max_steps=3"],
        ["eval.py", "--ckpt", str(last), "--json", str(tmp_path / "metrics.json")],
        [*train, "schedule.max_steps=4", "--resume", "auto"],
    )
    assert "epoch 1, step 3" in printed
    assert 0 <= json.loads((tmp_path / "metrics.json").read_text())["AP"] < 1
    steps = [json.loads(line)["step"] for line in (tmp_path / "runs/run/metrics.jsonl").read_text().splitlines()]
    assert steps == [3, 4]


def test_what_a_diff_adds_converts(tree, tmp_path):
    generate_shapes(tmp_path / "shapes", {"train": 2}, image_size=64, seed=1)
    first, second = sorted((tmp_path / "shapes/train").iterdir())
    first.with_name("notes.txt").write_text("is left out")
    table = first.with_name("train.csv")
    table.write_text(f"image,class,x1,y1,x2,y2\n{first.name},cat,1,2,30,40\n{second.name},,,,,\n")
    printed = run(tree, ["scripts/csv_to_coco.py", str(table.parent), "--output", str(tmp_path / "coco")])
    assert "1 file of another kind (notes.txt)" in printed
    document = json.loads((tmp_path / "coco/annotations/instances_train.json").read_text())
    assert [image["file_name"] for image in document["images"]] == [first.name, second.name]
    assert [record["bbox"] for record in document["annotations"]] == [[1, 2, 29, 38]]


@pytest.mark.slow
def test_the_tests_of_every_loss_and_configuration_hold_for_the_added_ones(tree):
    shutil.copytree(ROOT / "tests", tree / "tests", dirs_exist_ok=True)
    shutil.copytree(ROOT / "docs", tree / "docs", dirs_exist_ok=True)
    tests = ["tests/losses/test_table1.py", "tests/engine/run/test_shipped_configs.py"]
    line = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests, "-k", "zero or blank"]
    ended = subprocess.run(line, cwd=tree, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout[-3000:]
    typed = subprocess.run([sys.executable, "-m", "mypy"], cwd=tree, capture_output=True, text=True, check=False)
    assert typed.returncode == 0, typed.stdout[-3000:]


def test_the_lint_rules_hold_for_the_added_files(tree):
    added = re.findall(r"^\+\+\+ b/(.*\.py)$", "\n".join(DIFFS), re.MULTILINE)
    for command in (["check"], ["format", "--check"]):
        line = [sys.executable, "-m", "ruff", *command, *added]
        ended = subprocess.run(line, cwd=tree, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stdout + ended.stderr
