"""Writes a trained detector as one file that runs without this project: images in; boxes, scores and labels out.

Decoding and NMS are inside. Any number of images and any size will do, both sides padded to multiples of 32.
docs/export.md shows how to run the file. Faster R-CNN and CenterNet cannot be exported.

python scripts/export.py --ckpt runs/quickstart/checkpoints/best.pt --format torch --output detector.pt2
python scripts/export.py --ckpt runs/quickstart/checkpoints/best.pt --format onnx      # next to the checkpoint
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from engine.run.cli import ArgumentParser, user_errors

SUFFIXES = {"torch": ".pt2", "onnx": ".onnx"}


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--ckpt", required=True, metavar="FILE", help="checkpoint of a trained detector")
    parser.add_argument("--format", required=True, choices=SUFFIXES, help="onnx needs requirements-onnx.txt")
    parser.add_argument("--output", metavar="FILE", help="default: the checkpoint's name ending in .pt2 or .onnx")
    args = parser.parse_args()

    from data.counts import counted
    from data.output_folder import refuse_inputs, require_writable
    from engine.run.load import load_detector
    from engine.tools.export import export_onnx, export_torch

    export = export_torch if args.format == "torch" else export_onnx
    with user_errors():
        output = Path(args.output or os.path.splitext(args.ckpt)[0] + SUFFIXES[args.format])
        refuse_inputs([output], [args.ckpt])
        require_writable([output])
        detector, info = load_detector(args.ckpt)
        export(detector, info, output)
        print(f"{output}: {output.stat().st_size / 1e6:.0f} MB, {counted(len(info.classes), 'class')}")


if __name__ == "__main__":
    main()
