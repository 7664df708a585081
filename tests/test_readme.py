"""What README.md says is so: its commands run or are listed with a reason, names and messages exist, --help helps."""

import ast
import importlib
import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image

from data.synthetic.shapes import generate_shapes
from engine.run.config import load_config
from engine.run.datasets import evaluation_transform, training_resize

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
NO_OPTIONS = {"model_table.py"}  # prints a table of the documentation, and that is all
SCRIPTS = ["train.py", "eval.py", *(f"scripts/{path.name}" for path in sorted(ROOT.glob("scripts/*.py")))]
SCRIPTS = [script for script in SCRIPTS if Path(script).name not in NO_OPTIONS]

# a start of a command → where it runs, or why it does not
ELSEWHERE = {
    "bash scripts/quickstart.sh": "installs PyTorch and trains for minutes; its configuration trains in tests/engine",
    "bash scripts/test.sh": "is what runs this test",
    "bash scripts/install.sh": "installs PyTorch; the quickstart's first part",
    "git clone URL": "its reader knows the URL",
    "git clone https://github.com/Shenggan": "needs the net",
    "python scripts/bccd_to_coco.py": "tests/data/formats/test_bccd.py, from the same annotations",
    "python train.py --config configs/bccd_r18_alrp.yaml": "needs blood cells, and takes minutes",
    "python scripts/import_coco.py labels.json": "tests/data/formats/test_import_coco.py",
    "python scripts/yolo_to_coco.py my_yolo_folder": "tests/data/formats/test_convert.py",
    "python scripts/download_coco.py": "tests/engine/tools/test_download.py, against a server of its own",
    "python train.py --config configs/r50_alrp.yaml": "needs COCO; else tests/engine/training/test_training.py",
    "python eval.py --ckpt runs/r50_alrp": "needs COCO; below on small data",
    "python scripts/convert_checkpoint.py": "tests/engine/tools/test_released_alrp.py; else it needs a download",
    "python eval.py --ckpt runs/bccd_seed0": "needs blood cells, and the run before",
    "python eval.py --ckpt r50_alrp.pt": "needs the released weights and COCO",
    "torchrun": "needs GPUs; tests/engine/training/test_distributed_training.py on two CPU processes",
    "tensorboard": "is not ours; tests/engine/training/test_training.py reads what it shows",
    "python scripts/export.py": "tests/engine/tools/test_export.py",
}
# what makes the documented configuration fit for a test
SMALL = [
    *("run.device=cpu", "data.workers=0", "data.batch_size=4", "schedule.max_steps=2"),
    *("data.short_side=64", "data.long_side=64", "evaluation.short_side=64", "evaluation.long_side=64"),
    *("model.fpn_channels=64", "model.head_convs=1", "model.score_thresh=0.0", "run.precision=float32"),
]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[list[str]]:
    """The command lines of the README, without comments, words split as a shell does."""
    text = "".join(blocks("bash")).replace("\\\n", " ")
    return [words for line in text.splitlines() if (words := shlex.split(line, comments=True))]


def is_elsewhere(words: list[str]) -> bool:
    return any(" ".join(words).startswith(start) for start in ELSEWHERE)


def test_every_entry_of_the_list_is_in_the_readme():
    lines = [" ".join(words) for words in commands()]
    for start, reason in ELSEWHERE.items():
        assert any(line.startswith(start) for line in lines), start
        for path in re.findall(r"tests/[\w/]+/test_\w+\.py", reason):
            assert (ROOT / path).is_file(), path


@pytest.fixture
def workplace(tmp_path, monkeypatch) -> Path:
    """A folder like a fresh clone, with a VOC folder of twelve images and COCO results of nothing."""
    for name in ("train.py", "eval.py", "scripts"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    (tmp_path / "results.json").write_text("[]")
    _write_voc(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _write_voc(folder: Path) -> None:
    file = generate_shapes(folder / "source", {"all": 15}, image_size=64)["all"]
    document = json.loads(file.read_text())
    names = {category["id"]: category["name"] for category in document["categories"]}
    for part in ("Annotations", "JPEGImages"):
        (folder / "my_voc_folder" / part).mkdir(parents=True)
    for image in document["images"]:
        objects = ""
        for record in document["annotations"]:
            if record["image_id"] == image["id"]:
                x, y, w, h = record["bbox"]
                corners = {"xmin": x + 1, "ymin": y + 1, "xmax": x + w, "ymax": y + h}
                tags = "".join(f"<{tag}>{value}</{tag}>" for tag, value in corners.items())
                objects += f"<object><name>{names[record['category_id']]}</name><bndbox>{tags}</bndbox></object>"
        stem = Path(image["file_name"]).stem
        (folder / f"my_voc_folder/Annotations/{stem}.xml").write_text(f"<annotation>{objects}</annotation>")
        shutil.copy(folder / "source/all" / image["file_name"], folder / "my_voc_folder/JPEGImages")


def run(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """Runs `python SCRIPT …` in this process."""
    assert words[0] == "python"
    monkeypatch.setattr(sys, "argv", words[1:])
    monkeypatch.syspath_prepend(Path(words[1]).resolve().parent)  # as python itself does
    try:
        runpy.run_path(words[1], run_name="__main__")
    except SystemExit as stop:
        return stop.code or 0
    return 0


@pytest.mark.slow
def test_the_commands_run_from_top_to_bottom(workplace, monkeypatch, capsys):
    here = [words for words in commands() if not is_elsewhere(words)]
    for words in here:
        line = " ".join(words)
        if "compare_runs" in line:  # the README's second run, which it does not spell out in a line of its own
            second = ["python", "train.py", "--config", "configs/mine.yaml", "run.name=mine_lower_rate", *SMALL]
            assert run(second, monkeypatch) == 0
        more = SMALL if words[1] == "train.py" and "--resume" not in words else ()
        if "new_config" in line:  # the start that it would name is a download
            more = ("--from-scratch",)
        status = run([*words, *more], monkeypatch)
        printed = capsys.readouterr()
        assert status == 0, f"{line}\n{printed.out}\n{printed.err}"
        if "--dry-run" in words:
            assert not (workplace / "runs").exists()
    for written in ("runs/mine/train_batch.png", "runs/mine/checkpoints/best.pt", "metrics.json", "sizes.png"):
        assert (workplace / written).stat().st_size > 0, written
    assert any((workplace / "report").glob("*.html"))
    pictures = [path for path in (workplace / "predictions").rglob("*") if path.suffix in (".png", ".jpg")]
    assert len(pictures) == 3  # a fifth of fifteen
    assert (workplace / "predictions" / "detections.json").is_file()


def test_the_configuration_shown_is_one_and_keeps_the_shape_of_images(tmp_path):
    (config,) = (block for block in blocks("yaml") if block.startswith("# configs/mine.yaml"))
    (tmp_path / "mine.yaml").write_text(config)
    resize = evaluation_transform(load_config(tmp_path / "mine.yaml"))
    assert resize.output_size((480, 640)) == (384, 512)
    assert training_resize(load_config(tmp_path / "mine.yaml").data).output_size((640, 480)) == (512, 384)


def test_git_ignores_what_the_commands_write():
    outputs = ["runs/mine/config.yaml", "datasets/mine/train/1.jpg", "r50_alrp.pt"]
    for words in commands():
        for option, value in pairwise(words):
            if option in ("--output", "--json", "--report", "--picture", "--detections") and words[0] == "python":
                outputs.append(value if "." in value else f"{value}/file")
    git = ["git", "check-ignore", "--no-index", *outputs]
    try:
        ignored = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    except FileNotFoundError:
        pytest.skip("no git")
    assert len(outputs) >= 8
    assert set(outputs) == set(ignored)


def test_scripts_that_the_readme_names_exist():
    for words in commands():
        for word in words:
            if word.endswith((".py", ".sh")):
                assert (ROOT / word).is_file(), word


def test_links_and_pictures_exist():
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", README):
        assert (ROOT / target).is_file(), target
        if target.endswith(".png"):
            Image.open(ROOT / target).verify()


def test_the_eleven_hops_exist_where_the_readme_says():
    rows = re.findall(r"^\| (\d+) \| `([\w/]+)\.py` \| `([\w.]+)` \|", README, re.MULTILINE)
    assert [int(number) for number, _, _ in rows] == list(range(1, 12))
    for _, path, name in rows:
        found = importlib.import_module(path.replace("/", "."))
        for part in name.split("."):
            found = getattr(found, part)
        assert callable(found)
        first = name.split(".")[0]
        tree = ast.parse((ROOT / f"{path}.py").read_text())
        defined = [node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
        assert first in defined, f"{first} is imported into {path}.py, not defined there"


def test_quoted_messages_are_those_of_the_program():
    table = README.split("## When something goes wrong")[1].split("\n## ")[0]
    table += (ROOT / "docs/troubleshooting.md").read_text()
    cells = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    quoted = [text for cell in cells for text in re.findall(r"`([^`]+)`", cell) if "/" not in text]
    assert len(quoted) >= 14
    # adjacent parts of one message are one string in the source, over line ends
    sources = [path.read_text() for folder in ("engine", "data", "detector") for path in (ROOT / folder).rglob("*.py")]
    program = re.sub(r'"\s*\n\s*f?"', "", "\n".join(sources))
    for text in quoted:
        assert text in program, text


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_fits_a_screen_and_shows_two_examples(script, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "100")
    assert run(["python", script, "--help"], monkeypatch) == 0
    text = capsys.readouterr().out
    examples = [line for line in text.splitlines() if re.match(r"\s*(python|torchrun) .*\.py", line)]
    assert len(examples) >= 2 and any(script in line for line in examples), text
    assert len(text.splitlines()) < 60
    assert "\x1b" not in text
