"""Exported programs give the detections of the detector they were made of, for any batch and size."""

import json
import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from detector import build_detector
from engine import load_config
from engine.run.cli import user_errors
from engine.run.load import DetectorInfo
from engine.tools.export import (
    META,
    MIN_SIDE,
    ExportedOutputs,
    describe,
    detections_from_outputs,
    export_onnx,
    export_torch,
)

ROOT = Path(__file__).resolve().parents[3]
SHAPES = [(1, 3, 160, 224), (3, 3, 192, 160)]


@pytest.fixture(scope="module")
def small(tmp_path_factory, write_config):
    """A detector with frozen stages whose random scores lie around its threshold, and its info."""
    overrides = ["model.norm=frozen_batch", "model.frozen_stages=2", "model.score_thresh=0.01", "model.prior=0.01"]
    config = load_config(write_config(tmp_path_factory.mktemp("small")), overrides)
    torch.manual_seed(0)
    detector = build_detector(config, 3, load_weights=False).eval()
    thresholds = [0.0, None, 0.25]
    return detector, DetectorInfo(["a", "b", "ç"], [1, 2, 3], thresholds, config, epoch=1, step=2)


def same_detections(run, meta, detector):
    for shape in SHAPES:
        images = torch.rand(shape, generator=torch.Generator().manual_seed(1))
        sizes = [(shape[2] - 7 * i, shape[3] - 5) for i in range(shape[0])]
        found = detections_from_outputs(run(images), meta, sizes)
        with torch.no_grad():
            expected = detector(images, image_sizes=sizes)
        assert min(len(image["scores"]) for image in expected) > 20
        for one, other in zip(found, expected, strict=True):
            assert torch.equal(one["labels"], other["labels"])
            torch.testing.assert_close(one["scores"], other["scores"], rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(one["boxes"], other["boxes"], rtol=1e-4, atol=1e-3)


@pytest.fixture(scope="module")
def torch_file(small, tmp_path_factory):
    detector, info = small
    before = detector.anchor_generator._latest
    path = tmp_path_factory.mktemp("exported") / "detector.pt2"
    export_torch(detector, info, path)
    assert detector.anchor_generator._latest is before  # no symbol stays in the detector
    return path


def test_a_torch_program_gives_the_same_detections(small, torch_file):
    extra = {META: ""}
    program = torch.export.load(torch_file, extra_files=extra).module()
    meta = json.loads(extra[META])
    assert meta["classes"] == ["a", "b", "ç"] and meta["thresholds"] == [0.0, None, 0.25]
    same_detections(program, meta, small[0])
    with pytest.raises(AssertionError):
        program(torch.rand(1, 3, MIN_SIDE - 32, MIN_SIDE))


def test_torchvisions_box_convention_survives_the_trip_through_json(small):
    _, info = small
    config = info.config.model_copy(
        update={"model": info.config.model.model_copy(update={"box_convention": "torchvision"})}
    )
    detector = build_detector(config, 3, load_weights=False).eval()
    meta = json.loads(json.dumps(describe(detector, info), allow_nan=False))
    same_detections(torch.no_grad()(ExportedOutputs(detector)), meta, detector)


def test_the_documented_example_runs(torch_file, monkeypatch, capsys):
    example, onnx_example = re.findall(r"```python\n(.*?)```", (ROOT / "docs/export.md").read_text(), re.DOTALL)
    compile(onnx_example, "docs/export.md", "exec")
    monkeypatch.chdir(torch_file.parent)
    pixels = torch.randint(0, 256, (230, 310, 3), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)
    Image.fromarray(pixels.numpy()).save("image.jpg")
    exec(example, {})
    lines = capsys.readouterr().out.splitlines()
    assert lines and all(line.split()[0] in ("a", "ç") for line in lines)


def test_an_onnx_model_gives_the_same_detections(small, tmp_path):
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package, reason="needs requirements-onnx.txt")
    runtime = pytest.importorskip("onnxruntime", reason="needs requirements-onnx.txt")
    detector, info = small
    export_onnx(detector, info, tmp_path / "small.onnx")
    session = runtime.InferenceSession(tmp_path / "small.onnx")
    assert [output.name for output in session.get_outputs()] == list(detector.outputs(torch.zeros(1, 3, 160, 160)))
    meta = json.loads(session.get_modelmeta().custom_metadata_map[META])
    same_detections(lambda images: session.run(None, {"images": images.numpy()}), meta, detector)


def test_onnx_without_its_packages_names_the_requirements_file(small, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit) as stop, user_errors():
        export_onnx(*small, tmp_path / "small.onnx")
    assert stop.value.code == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ") and "requirements-onnx.txt" in text and text.count("\n") == 1
    assert not any(tmp_path.iterdir())
