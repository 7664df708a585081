"""Exported programs give the detections of the detector they are of, and the documented examples predict.py's."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

import engine.tools.export as exporting
import scripts.export as script
from detector import Detector, build_detector
from detector.families import DEFAULT_FAMILY, FAMILIES
from engine import load_config, predict
from engine.run.cli import user_errors
from engine.run.load import DetectorInfo
from engine.tools.export import ExportError, export_onnx, export_torch

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = re.findall(r"```python\n(.*?)```", (ROOT / "docs/export.md").read_text(), re.DOTALL)
CLASSES = ["a", "b", "ç"]
SHAPES = [(1, 3, 160, 224), (3, 3, 192, 160), (1, 3, 32, 32), (2, 3, 32, 256), (1, 3, 128, 96)]
RULES = {
    "exact": [],
    "own size": ["data.augmentation=crop"],
    "short side": ["evaluation.short_side=96", "evaluation.long_side=150"],
    "torchvision": ["evaluation.short_side=96", "evaluation.long_side=150", "evaluation.resize=torchvision"],
}
WITHOUT_PROJECT = """
import sys
print(json.dumps([values.tolist() for values in detect("image.jpg")]))
loaded = {name.split(".")[0] for name in sys.modules}
assert not loaded & {"detector", "engine", "data", "losses", "alrp", "torchvision", NOT_NEEDED}, loaded
"""


NOT_EXPORTED = ("faster_rcnn", "centernet")  # families whose detector has no `padded_detections`


# one family in the fast suite, as an export takes a quarter of a minute; test_every_family.py exports another
EXPORTED = [
    pytest.param(name, marks=() if name == DEFAULT_FAMILY else pytest.mark.slow)
    for name in FAMILIES
    if name not in NOT_EXPORTED
]


@pytest.fixture(scope="module", params=EXPORTED)
def family(request, tmp_path_factory, write_config):
    """An untrained detector whose scores differ widely, its program, and a file of its configuration."""
    config_file = write_config(tmp_path_factory.mktemp(request.param))
    overrides = [f"model.family={request.param}"]
    torch.manual_seed(0)
    detector = build_detector(load_config(config_file, overrides), len(CLASSES), load_weights=False).eval()
    with torch.no_grad():
        for name in detector.class_head:
            detector.get_parameter(name).mul_(30 if name.endswith("weight") else 0.1)
    detector.to(memory_format=torch.channels_last)  # as `load_detector` gives it
    return detector, exporting._trace(detector), config_file, overrides


@pytest.fixture
def image(tmp_path) -> Path:
    """To be turned by EXIF, with structures of all sizes."""
    coarse, fine = (Image.effect_noise(size, 120).resize((310, 230)) for size in ((9, 7), (90, 60)))
    tags = Image.Exif()
    tags[0x0112] = 6
    Image.merge("RGB", (coarse, fine, coarse)).save(tmp_path / "image.jpg", exif=tags)
    return tmp_path / "image.jpg"


def info_of(family, rule: str, image: Path) -> DetectorInfo:
    """With thresholds in the widest gap of the scores of the better detections, which no rounding bridges."""
    detector, _, config_file, overrides = family
    info = DetectorInfo(CLASSES, [1, 2, 3], None, load_config(config_file, [*overrides, *RULES[rule]]), epoch=1, step=2)
    scores = predict(detector, info, image, threshold=0.0)["scores"][4:40]
    at = int((scores[:-1] - scores[1:]).argmax())
    return replace(info, thresholds=[scores[at : at + 2].mean().item()] * 3)


def require_same(found, expected, pixels: float, score: float):
    """The same detections, also where equal scores come in another order."""
    boxes, scores, labels = (torch.as_tensor(values) for values in found)
    assert len(boxes) == len(expected["boxes"]) > 4
    distance = (boxes[:, None] - expected["boxes"]).abs().amax(dim=2)
    distance[labels[:, None] != expected["labels"]] = torch.inf
    nearest, which = distance.min(dim=0)
    assert nearest.max() < pixels
    assert len(which.unique()) == len(which)
    assert (scores[which] - expected["scores"]).abs().max() < score


def run_alone(example: str, folder: Path, not_needed: str) -> list:
    """What `detect` of a documented example gives, in a process that cannot see this project."""
    code = example + WITHOUT_PROJECT.replace("NOT_NEEDED", repr(not_needed))
    (folder / "example.py").write_text(code)
    line = [sys.executable, "-I", "example.py"]
    ended = subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


def test_a_torch_program_gives_the_detections_of_any_batch_and_size(family):
    detector, program, *_ = family
    for shape in SHAPES:
        images = torch.rand(shape, generator=torch.Generator().manual_seed(1))
        sizes = [(shape[2] - 7 * i, shape[3] - 5) for i in range(shape[0])]
        with torch.no_grad():
            boxes, scores, labels = program.module()(images, torch.tensor(sizes))
            expected = detector(images, image_sizes=sizes)
        for i, one in enumerate(expected):
            count = len(one["scores"])
            assert 0 < count <= boxes.shape[1] == 100
            assert torch.equal(labels[i], torch.cat([one["labels"], torch.full((100 - count,), -1)]))
            torch.testing.assert_close(scores[i, :count], one["scores"], rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(boxes[i, :count], one["boxes"], rtol=1e-4, atol=1e-3)
            assert not boxes[i, count:].any() and not scores[i, count:].any()


def test_the_documented_example_gives_predictions_without_this_project(family, image, monkeypatch):
    info = info_of(family, "torchvision", image)
    monkeypatch.setattr(exporting, "_trace", lambda _: family[1])
    export_torch(family[0], info, image.parent / "detector.pt2")
    found = run_alone(EXAMPLES[0], image.parent, "onnxruntime")
    require_same(found, predict(family[0], info, image), pixels=0.05, score=1e-3)


@pytest.mark.slow  # above the example resizes as torchvision does
@pytest.mark.parametrize("rule", RULES)
def test_the_documented_example_resizes_as_the_file_says(family, image, monkeypatch, capsys, rule):
    if "retinanet" not in family[3][0]:
        pytest.skip("the rules are the same for all families")
    info = info_of(family, rule, image)
    monkeypatch.setattr(exporting, "_trace", lambda _: family[1])
    export_torch(family[0], info, image.parent / "detector.pt2")
    monkeypatch.chdir(image.parent)
    names: dict = {}
    exec(EXAMPLES[0], names)
    require_same(names["detect"]("image.jpg"), predict(family[0], info, image), pixels=0.05, score=1e-3)
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()} <= set(CLASSES)


def test_the_documented_onnx_example_gives_predictions_with_numpy_alone(family, image, monkeypatch):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="needs requirements-onnx.txt")
    info = info_of(family, "short side", image)
    monkeypatch.setattr(exporting, "_trace", lambda _: family[1])
    export_onnx(family[0], info, image.parent / "detector.onnx")
    found = run_alone(EXAMPLES[1], image.parent, "torch")
    require_same(found, predict(family[0], info, image), pixels=0.5, score=0.02)


def test_the_file_says_what_predict_does(write_config, tmp_path):
    config = load_config(write_config(tmp_path), ["data.exif=ignore", "data.image_size=[64,96]"])
    meta = exporting.describe(DetectorInfo(CLASSES, [1, 2, 3], [0.25, None, 0.0], config, epoch=1, step=2))
    assert json.loads(json.dumps(meta)) == {
        "family": "retinanet",
        "classes": CLASSES,
        "thresholds": [0.25, 0.5, 0.0],
        "exif": "ignore",
        "resize": {"size": [64, 96], "pixels": "uint8"},
        "size_divisor": 32,
        "padding": [124, 116, 104],
    }


def test_onnx_without_its_packages_names_the_requirements_file(write_checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit) as stop, user_errors():
        export_onnx(torch.nn.Identity(), None, tmp_path / "small.onnx")
    assert stop.value.code == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ") and "requirements-onnx.txt" in text and text.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_a_family_that_cannot_be_exported_is_one_line(write_config, tmp_path, monkeypatch):
    config = load_config(write_config(tmp_path))
    detector = build_detector(config, 3, load_weights=False).eval()
    monkeypatch.setattr(type(detector), "padded_detections", Detector.padded_detections)
    with pytest.raises(ExportError, match="a RetinaNet cannot be exported"):
        export_torch(detector, DetectorInfo(CLASSES, [1, 2, 3], None, config, epoch=1, step=2), tmp_path / "d.pt2")
    assert not (tmp_path / "d.pt2").exists()


def test_a_folder_in_place_of_a_checkpoint_is_one_line(call, capsys):
    with pytest.raises(SystemExit) as stop:
        call(script, "--ckpt", ".", "--format", "torch")
    assert stop.value.code == 2
    text = capsys.readouterr().err
    assert text.startswith("error: .: a folder, not a checkpoint file") and text.count("\n") == 1
