"""Detects objects in images and videos: pictures with boxes, one line of what was found in each, and detections.json in
COCO's results format, in one folder. Videos, and all frames of animated pictures, need requirements-video.txt.

python scripts/predict.py --ckpt runs/quickstart/checkpoints/best.pt --output predictions photo.jpg clip.mp4
python scripts/predict.py --ckpt runs/quickstart/checkpoints/best.pt --output predictions --threshold 0.3 photos/

Each class is shown from its LRP-optimal score on (0.5 where it has none), so that pictures show the operating point
that oLRP measures. Status 1 if a file could not be read; the others are done.
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
    parser.add_argument(
        "--annotations", metavar="FILE", help="COCO annotations that the images are of: detections.json has its ids"
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE_OR_DIR", help="image or video, or a folder of them")
    args = parser.parse_args()
    if args.threshold is not None and not 0 <= args.threshold <= 1:
        parser.error(f"--threshold {args.threshold}: must be a score from 0 to 1")

    from engine import load_detector
    from engine.run.distributed import choose_device
    from engine.run.operating_point import DEFAULT_THRESHOLD, classes_without_threshold
    from engine.tools.prediction_files import AnnotationIds, FilePredictor, claim_output
    from engine.tools.prediction_inputs import find_inputs

    with user_errors():
        inputs = find_inputs(args.images, args.output, stills=args.annotations is not None)
        detector, info = load_detector(args.ckpt, choose_device("auto"))
        files = [entry.file for entry in inputs]
        ids = None if args.annotations is None else AnnotationIds(args.annotations, info, files)
        claim_output(inputs, args.output, [args.ckpt, *([] if args.annotations is None else [args.annotations])])
        names = classes_without_threshold(info)
        if args.threshold is None and names:
            print(
                f"no LRP-optimal threshold for {len(names)} of {len(info.classes)} classes ({', '.join(names[:5])}"
                f"{', …' if len(names) > 5 else ''}): shown from {DEFAULT_THRESHOLD} on; --threshold sets another",
                file=sys.stderr,
            )
        predictor = FilePredictor(detector, info, args.output, args.threshold, ids)
        try:
            num_unreadable = predictor.run(inputs)
        except KeyboardInterrupt:
            done = f"{predictor.num_done} of {len(inputs)} files"
            print(f"interrupted: {args.output} has pictures and detections.json of {done}", file=sys.stderr)
            return 130
    count = f"{len(inputs)} {'image' if len(inputs) == 1 else 'images'}"
    print(f"{len(inputs) - num_unreadable} of {count} done: pictures and detections.json are in {args.output}")
    if num_unreadable:
        print(f"error: {num_unreadable} of {count} could not be read; see the warnings", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
