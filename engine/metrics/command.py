"""The installed command. AP, oLRP and the score thresholds of each class from two COCO files:

alrp evaluate --annotations instances_val.json --detections results.json
alrp evaluate --annotations instances_val.json --detections results.json --json metrics.json

Exit status: 0 done; 1 the metrics cannot be written; 2 bad usage or data.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from .errors import DetectionsError
from .report import format_report, write_json


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command; ends the program with one `error:` line where it fails for a reason that a user can mend.

    Args:
        arguments: of the command line; None for those of the program.
    """
    args = _parser().parse_args(arguments)
    try:
        from .coco_metrics import evaluate

        if args.json and any(_is_same_file(args.json, source) for source in (args.annotations, args.detections)):
            raise DetectionsError(f"--json {args.json}: is an input; name another file")
        metrics = evaluate(args.annotations, args.detections)
        if args.json:
            write_json(args.json, metrics)
        _print(format_report(metrics, f"{args.detections} on {args.annotations}"))
    except ModuleNotFoundError as error:
        if error.name != "numpy":
            raise
        _stop("the metrics need NumPy: pip install numpy", 2)
    except DetectionsError as error:
        _stop(str(error), error.exit_status)
    except BrokenPipeError:  # `| head` has seen enough; what Python still wants to write goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except IsADirectoryError as error:
        _stop(f"{error.filename}: is a folder; name a file", 1)
    except OSError as error:
        where = error.filename or "standard output"
        _stop(f"{where}: {error.strerror}; check that the path exists, is writable and has space", 1)
    except KeyboardInterrupt:
        raise SystemExit(130) from None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        _stop(f"{message}; --help lists the options", 2)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="alrp", description="Metrics of object detections in COCO's format.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    command = commands.add_parser(
        "evaluate",
        help="AP, oLRP and score thresholds of a results file",
        description="COCO AP and AR, oLRP with its parts, and for each class the score thresholds with the smallest "
        "LRP and the largest F1, with precision and recall there.",
    )
    command.add_argument("--annotations", required=True, metavar="FILE", help="ground truth in COCO format")
    command.add_argument("--detections", required=True, metavar="FILE", help="COCO results: a list of detections")
    command.add_argument("--json", metavar="OUT", help="write the metrics there too")
    return parser


def _is_same_file(output: str, source: str) -> bool:
    return Path(output).exists() and Path(source).exists() and Path(output).samefile(source)


def _print(text: str) -> None:
    """Class names may hold what the terminal cannot show."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)


def _stop(message: str, status: int) -> NoReturn:
    print("error: " + " ".join(message.split()), file=sys.stderr)
    raise SystemExit(status)


if __name__ == "__main__":
    main()
