"""Detects objects in images: pictures with boxes, and detections.json in COCO's results format, in one folder.

python scripts/predict.py --ckpt runs/quickstart/checkpoints/best.pt --output predictions photo.jpg
python scripts/predict.py --ckpt runs/quickstart/checkpoints/best.pt --output predictions --threshold 0.3 photos/

Each class is shown from its LRP-optimal score on (0.5 where it has none), so that pictures show the operating point
that oLRP measures. Status 1 if an image could not be read; the others are done.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from engine.run.cli import ArgumentParser, user_errors


def main() -> int:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--ckpt", required=True, metavar="FILE", help="checkpoint of training")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for pictures and detections.json")
    parser.add_argument("--threshold", type=float, metavar="T", help="show every class from this score on, 0 to 1")
    parser.add_argument("images", nargs="+", metavar="IMAGE_OR_DIR", help="image, or folder of images at any depth")
    args = parser.parse_args()
    if args.threshold is not None and not 0 <= args.threshold <= 1:
        parser.error(f"--threshold {args.threshold}: must be a score from 0 to 1")

    from engine import load_detector
    from engine.run.distributed import choose_device
    from engine.tools.prediction import (
        DEFAULT_THRESHOLD,
        claim_output,
        classes_without_threshold,
        find_images,
        predict_files,
    )

    with user_errors():
        images = find_images(args.images, args.output)
        detector, info = load_detector(args.ckpt, choose_device("auto"))
        claim_output(images, args.output, [args.ckpt])
        names = classes_without_threshold(info)
        if args.threshold is None and names:
            print(
                f"no LRP-optimal threshold for {len(names)} of {len(info.classes)} classes ({', '.join(names[:5])}"
                f"{', …' if len(names) > 5 else ''}): shown from {DEFAULT_THRESHOLD} on; --threshold sets another",
                file=sys.stderr,
            )
        num_unreadable = predict_files(detector, info, images, args.output, args.threshold)
    done = len(images) - num_unreadable
    print(f"{done} of {len(images)} images done: pictures and detections.json are in {args.output}")
    if num_unreadable:
        print(f"error: {num_unreadable} of {len(images)} images could not be read; see the warnings", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
