"""A detector as a program that runs without this project: images in, detections out, by torch.export or ONNX."""

import copy
import importlib.util
import io
import json
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.experimental import _config as symbolic_shapes

from data.files import write_atomically
from data.images import EXACT_MEAN_COLOUR, MEAN_COLOUR
from data.transforms import OwnSize, Resize, ResizeAsTorchvision
from detector import Detector
from detector.contract import SIZE_DIVISOR
from engine.run.datasets import evaluation_transform
from engine.run.load import DetectorInfo
from engine.run.operating_point import score_thresholds

META = "detector.json"  # entry of a torch.export file, and key of an ONNX model's metadata
INPUTS, OUTPUTS = ("images", "image_sizes"), ("boxes", "scores", "labels")
_EXAMPLE = (2, 3, 256, 192)  # what the program is traced with


class ExportError(ValueError):
    """An export that cannot be made; the message is one line for the user."""

    exit_status = 2


class ExportedDetector(nn.Module):
    """The part of a detector that is exported: all of it."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor, image_sizes: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) in 0..1 and (B, 2) int64 sizes to the detector's `padded_detections`."""
        return tuple(self.detector.padded_detections(images, image_sizes))


def describe(info: DetectorInfo) -> dict[str, Any]:
    """Metadata of an exported program, which is what `predict` does around the detector.

    Returns:
        "family"; "classes", names by label; "thresholds", the score from which each is shown; "exif", "turn" or
        "ignore"; "resize", see `_resizing`; "size_divisor" of both sides of a batch; "padding", R, G, B in 0..255.
    """
    transform = evaluation_transform(info.config)
    colour = EXACT_MEAN_COLOUR if isinstance(transform, ResizeAsTorchvision) else MEAN_COLOUR
    return {
        "family": info.config.model.family,
        "classes": info.classes,
        "thresholds": score_thresholds(info),
        "exif": "ignore" if info.config.data.exif == "ignore" else "turn",
        "resize": _resizing(transform),
        "size_divisor": SIZE_DIVISOR,
        "padding": colour,
    }


def _resizing(transform: Any) -> dict[str, Any]:
    """Either "size", [height, width] or "own" for that of the image, or the limits "short_side" and "long_side", with
    "rounding", to be added to a side before it is rounded down; and "pixels", the type that pixels are resized in."""
    if isinstance(transform, OwnSize):
        return {"size": "own", "pixels": "uint8"}
    if isinstance(transform, Resize):
        return {"size": transform.size, "pixels": "uint8"}
    limits = {"size": None, "short_side": transform.short_side, "long_side": transform.long_side}
    if isinstance(transform, ResizeAsTorchvision):
        return limits | {"rounding": 0.0, "pixels": "float32"}
    return limits | {"rounding": 0.5, "pixels": "uint8"}


def export_torch(detector: Detector, info: DetectorInfo, path: Path) -> None:
    """Writes a `torch.export` program, to be opened with `torch.export.load`; batch and size are free.

    Args:
        detector: in eval mode, on the CPU.
        info: of its checkpoint; travels in the file as `detector.json`.
    Raises:
        ExportError: the family cannot be exported.
    """
    program = _trace(detector)
    content = io.BytesIO()
    torch.export.save(program, content, extra_files={META: json.dumps(describe(info))})
    write_atomically(path, lambda file: file.write(content.getbuffer()))


def export_onnx(detector: Detector, info: DetectorInfo, path: Path) -> None:
    """Writes the same program as one ONNX file with the same names of inputs and outputs.

    Raises:
        ExportError: onnx or onnxscript is not installed, or the family cannot be exported.
    """
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise ExportError(f"--format onnx: needs {' and '.join(missing)}: pip install -r requirements-onnx.txt")
    with redirect_stdout(io.StringIO()), _sizes_without_exceptions():  # torch prints its progress
        program = torch.onnx.export(
            _trace(detector), input_names=INPUTS, output_names=OUTPUTS, dynamo=True, verbose=False
        )
    assert program is not None  # without a file to write to
    model = program.model_proto
    model.metadata_props.add(key=META, value=json.dumps(describe(info)))
    write_atomically(path, lambda file: file.write(model.SerializeToString()))


@torch.no_grad()
def _trace(detector: Detector) -> torch.export.ExportedProgram:
    batch, rows, columns = (torch.export.Dim(name, min=1) for name in ("batch", "rows", "columns"))
    sizes = {0: batch, 2: SIZE_DIVISOR * rows, 3: SIZE_DIVISOR * columns}
    # channels first: with channels last in memory, strides would depend on the sizes, and the program on the example's
    detector = copy.deepcopy(detector).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    example = torch.zeros(_EXAMPLE), torch.tensor([_EXAMPLE[2:]] * _EXAMPLE[0])
    try:
        with _sizes_without_exceptions():
            return torch.export.export(
                ExportedDetector(detector), example, dynamic_shapes={"images": sizes, "image_sizes": {0: batch}}
            )
    except NotImplementedError as error:
        raise ExportError(f"a {type(detector).__name__} cannot be exported; use the checkpoint") from error


def _sizes_without_exceptions() -> Any:
    """Lets tracing treat 1 as any other size. By default it takes all sizes for larger, and a program would refuse
    images whose last level has one row or column, those of 128 pixels or less."""
    return symbolic_shapes.patch(backed_size_oblivious=True)  # type: ignore[attr-defined]
