"""COCO AP and AR, oLRP and LRP-optimal thresholds of any COCO results file; no model needed.

python scripts/evaluate_detections.py --annotations instances_val2017.json --detections results.json
python scripts/evaluate_detections.py --annotations instances_val.json --detections results.json --json metrics.json
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from engine.run.cli import ArgumentParser, user_errors


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--annotations", required=True, metavar="FILE", help="ground truth in COCO format")
    parser.add_argument("--detections", required=True, metavar="FILE", help="COCO results: a list of detections")
    parser.add_argument("--json", metavar="OUT", help="write the metrics there too")
    args = parser.parse_args()

    from data.output_folder import refuse_inputs, require_writable
    from engine.metrics.coco_metrics import evaluate_detections
    from engine.metrics.report import format_report, write_json

    with user_errors():
        refuse_inputs([args.json], [args.annotations, args.detections])
        require_writable([args.json])
        metrics = evaluate_detections(args.annotations, args.detections)
        try:
            if args.json:
                write_json(args.json, metrics)
        finally:  # where the file fails, the numbers are not lost
            print(format_report(metrics, f"{args.detections} on {args.annotations}"))


if __name__ == "__main__":
    main()
