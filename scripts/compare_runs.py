"""Compares training runs: last and best results, differing settings, and a picture of AP and oLRP over the epochs.

python scripts/compare_runs.py runs/bccd_r18_alrp runs/bccd_r18_focal
python scripts/compare_runs.py runs/* --output comparison.png
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from engine.run.cli import ArgumentParser, user_errors

PICTURE = "comparison.png"


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folder, such as runs/quickstart")
    parser.add_argument("--output", metavar="PNG", help=f"picture (default: {PICTURE}, if it does not exist yet)")
    args = parser.parse_args()

    from data.files import write_atomically
    from data.output_folder import refuse_inputs
    from engine.reporting.comparison import RUN_FILES, format_comparison, read_runs
    from engine.reporting.figures import comparison_figure, figure_png

    output = Path(args.output or PICTURE)
    with user_errors():
        refuse_inputs([output], (Path(run, name) for run in args.runs for name in RUN_FILES))
        runs = read_runs(args.runs)
        print(format_comparison(runs))
        if not args.output and os.path.lexists(output):
            print(f"\nno picture: {output} exists; name another file with --output, or this one to replace it")
            return
        picture = figure_png(comparison_figure([(run.name, run.evaluations) for run in runs]))
        write_atomically(output, lambda file: file.write(picture))
    print(f"\npicture: {output}")


if __name__ == "__main__":
    main()
