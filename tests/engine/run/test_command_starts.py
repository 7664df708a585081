"""Commands answer at once: --help without PyTorch, converters without it at all, Ctrl-C while they still import."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[3]
COMMANDS = ["train.py", "eval.py", *(str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("scripts/*.py")))]
COMMANDS += [f"scripts/dev/{name}.py" for name in ("fuzz", "model_table", "same_numbers", "torture")]
COMMANDS += [f"scripts/benchmark.py {name}" for name in ("loss", "train", "infer", "data", "metrics")]
MOST_PROCESSOR_SECONDS = 1.0  # about ten times what it takes; PyTorch alone takes twice as much
WITHOUT_TORCH = "import runpy, sys; sys.modules['torch'] = None; sys.argv = sys.argv[1:]; "
WITHOUT_TORCH += "runpy.run_path(sys.argv[0], run_name='__main__')"
VOC = """<annotation><object><name>cat</name><bndbox>
<xmin>1</xmin><ymin>1</ymin><xmax>8</xmax><ymax>8</ymax></bndbox></object></annotation>"""
COCO = """{"images": [{"id": 1, "file_name": "a.png", "height": 8, "width": 16}],
"annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 7, 7], "area": 49, "iscrowd": 0}],
"categories": [{"id": 1, "name": "cat"}]}"""


def run(*line: object, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess:
    words = [sys.executable, *map(str, line)]
    more = {"capture_output": True, "text": True, "timeout": 60, "check": False}
    return subprocess.run(words, cwd=cwd, env=os.environ | environment, **more)


def processor_seconds() -> float:
    """Of the child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@pytest.mark.parametrize("command", COMMANDS)
def test_help_takes_less_than_a_second_of_the_processor(command):
    for _ in range(2):  # the second time warm
        before = processor_seconds()
        done = run("-X", "importtime", *command.split(), "--help")
        seconds = processor_seconds() - before
        assert done.returncode == 0, done.stderr
        if seconds < MOST_PROCESSOR_SECONDS:
            break
    assert done.stdout.startswith("usage: ")
    modules = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "argparse" in modules  # else nothing was measured
    assert not modules & {"torch", "torchvision", "matplotlib", "pycocotools.coco"}
    assert seconds < MOST_PROCESSOR_SECONDS


@pytest.fixture
def unconverted(tmp_path):
    """A folder with one labelled image for each converter, and what download_coco.py finds unpacked already."""
    image = tmp_path / "labelled/images/a.png"
    image.parent.mkdir(parents=True)
    Image.new("RGB", (16, 8)).save(image)
    (image.parent / "a.xml").write_text(VOC)
    (image.parent / "a.txt").write_text("0 0.5 0.5 0.5 0.5")
    (image.parent / "classes.txt").write_text("cat")
    (image.parent / "labels.json").write_text(COCO)
    (tmp_path / "coco/annotations").mkdir(parents=True)
    for name in ("val2017", "annotations/instances_train2017.json", "annotations/instances_val2017.json"):
        (tmp_path / "coco" / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        ("voc_to_coco.py labelled/images --val 0 --output out", "1 image, 1 object,"),
        ("yolo_to_coco.py labelled/images --val 0 --output out", "1 image, 1 object,"),
        ("import_coco.py labelled/images --val 0 --output out", "1 image, 1 object,"),
        ("download_coco.py --splits val --output coco", "coco: complete"),
        ("make_shapes.py --train 1 --val 0 --test 0 --size 64 --output out --samples sheet.png", "1 image,"),
    ],
)
def test_converters_come_to_their_end_without_pytorch(unconverted, words, printed):
    script, *options = words.split()
    options = [
        str(unconverted / word) if "/" in word or word in ("out", "coco", "sheet.png") else word for word in options
    ]
    done = run("-c", WITHOUT_TORCH, f"scripts/{script}", *options, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr
    assert printed in done.stdout


@pytest.mark.parametrize("module", ["torch", "tqdm"])  # what main() imports, and what comes before it
def test_an_interrupted_import_is_one_line(module, tmp_path):
    heeded = "signal.signal(signal.SIGINT, signal.default_int_handler)"  # the tests may run in the background
    interrupt = f"import os, signal, time\n{heeded}\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(30)"
    (tmp_path / f"{module}.py").write_text(interrupt)
    for command in ("train.py --config x.yaml", "scripts/predict.py --ckpt x.pt --output y z.jpg"):
        done = run(*command.split(), PYTHONPATH=str(tmp_path))
        assert (done.returncode, done.stderr) == (130, "error: interrupted\n")


def test_an_interrupt_that_becomes_another_error_is_one_line_too():
    """As argparse's clean-up makes of one that comes while it builds the usage line."""
    done = run("-c", "import engine.run.cli\ntry:\n    raise KeyboardInterrupt\nfinally:\n    None.gone")
    assert (done.returncode, done.stderr) == (130, "error: interrupted\n")


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (1, 0),  # fails when Python ends and writes out what it holds
        (100_000, 141),  # fails in print
    ],
)
def test_what_nobody_reads_any_more_is_not_complained_of(lines, status):
    reader, writer = os.pipe()
    os.close(reader)
    program = f"import engine.run.cli\nfor _ in range({lines}):\n    print('a line')"
    buffered = os.environ | {"PYTHONUNBUFFERED": ""}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=buffered, stdout=writer, stderr=subprocess.PIPE, text=True
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (status, "")


def test_another_broken_pipe_keeps_its_traceback():
    done = run("-c", "import engine.run.cli\nraise BrokenPipeError(32, 'Broken pipe')")
    assert done.returncode == 1 and "Traceback" in done.stderr


def test_other_uncaught_errors_keep_their_traceback():
    done = run("-c", "import engine.run.cli\nNone.gone")
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "AttributeError" in done.stderr
