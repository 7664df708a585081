"""A detector as a program that runs without this project: torch.export or ONNX, and what to do with its outputs."""

import importlib.util
import io
import json
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data.files import write_atomically
from detector import Detector
from detector.contract import SIZE_DIVISOR
from detector.families import DEFAULT_FAMILY, FAMILIES
from engine.run.load import DetectorInfo

META = "detector.json"  # entry of a torch.export file, and key of an ONNX model's metadata
# Tracing takes it that every level has more than one cell a side, and P7 has stride 128.
MIN_SIDE = 160
_EXAMPLE = (2, 3, 256, 192)  # what the program is traced with; a batch of one would be taken for a constant


class ExportError(ValueError):
    """An export that cannot be made; the message is one line for the user."""

    exit_status = 2


class ExportedOutputs(nn.Module):
    """The part of a detector that is exported: images to what the network says."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) in 0..1 to the detector's `outputs`, in their order."""
        return tuple(self.detector.outputs(images).values())


def describe(detector: Detector, info: DetectorInfo) -> dict[str, Any]:
    """Metadata of an exported program: family, class names, LRP-optimal thresholds, whether EXIF turns the
    images, post-processing settings."""
    return {
        "family": info.config.model.family,
        "classes": info.classes,
        "thresholds": info.thresholds,
        "exif": "ignore" if info.config.data.exif == "ignore" else "turn",
        "postprocess": detector.output_settings(),
    }


def export_torch(detector: Detector, info: DetectorInfo, path: Path) -> None:
    """Writes a `torch.export` program, to be opened with `torch.export.load`; batch and size are free.

    Args:
        detector: in eval mode, on the CPU.
        info: of its checkpoint; travels in the file as `detector.json`.
    """
    program = _trace(detector)
    content = io.BytesIO()
    torch.export.save(program, content, extra_files={META: json.dumps(describe(detector, info))})
    write_atomically(path, lambda file: file.write(content.getbuffer()))


def export_onnx(detector: Detector, info: DetectorInfo, path: Path) -> None:
    """Writes the same program as one ONNX file with the same names of inputs and outputs.

    Raises:
        ExportError: onnx or onnxscript is not installed.
    """
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise ExportError(f"--format onnx: needs {' and '.join(missing)}: pip install -r requirements-onnx.txt")
    with torch.no_grad():
        names = list(detector.outputs(torch.zeros(_EXAMPLE)))
    with redirect_stdout(io.StringIO()):  # torch prints its progress
        program = torch.onnx.export(
            _trace(detector), input_names=["images"], output_names=names, dynamo=True, verbose=False
        )
    assert program is not None  # without a file to write to
    model = program.model_proto
    model.metadata_props.add(key=META, value=json.dumps(describe(detector, info)))
    write_atomically(path, lambda file: file.write(model.SerializeToString()))


def detections_from_outputs(
    outputs: Sequence[Any], meta: dict[str, Any], image_sizes: Sequence[tuple[int, int]]
) -> list[dict[str, Tensor]]:
    """Detections of an exported program, as the detector itself gives them.

    Args:
        outputs: of the program, tensors or NumPy arrays in its order.
        meta: what `describe` says; `json.loads` of the program's `detector.json`.
        image_sizes: (height, width) of each image without its padding, to which boxes are clipped.
    Returns:
        Per image "boxes" (n, 4) xyxy, "scores" (n,), "labels" (n,), best first.
    """
    family = FAMILIES[meta.get("family", DEFAULT_FAMILY)]  # programs of revision efdaf8b do not say it
    return family.detections_from_outputs(outputs, meta["postprocess"], image_sizes)


@torch.no_grad()
def _trace(detector: Detector) -> torch.export.ExportedProgram:
    rows, columns = (torch.export.Dim(name, min=MIN_SIDE // SIZE_DIVISOR) for name in ("rows", "columns"))
    sizes = {0: torch.export.Dim("batch", min=1), 2: SIZE_DIVISOR * rows, 3: SIZE_DIVISOR * columns}
    return torch.export.export(ExportedOutputs(detector), (torch.zeros(_EXAMPLE),), dynamic_shapes={"images": sizes})
