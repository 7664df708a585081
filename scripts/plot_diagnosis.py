"""Draws the diagnoses of one or several runs side by side (runs that were trained with run.diagnose=true).

python scripts/plot_diagnosis.py runs/mine
python scripts/plot_diagnosis.py runs/mine runs/mine_lower_rate --output diagnosis.png
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from engine.run.cli import ArgumentParser, log_to_console, user_errors


def main() -> int:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", type=Path, help="run folder, such as runs/mine")
    parser.add_argument("--output", metavar="OUT.png", type=Path, default=Path("diagnosis.png"), help="%(default)s")
    args = parser.parse_args()

    from data.files import write_atomically
    from data.output_folder import refuse_inputs
    from engine.diagnosis.figure import diagnosis_figure, read_run
    from engine.reporting.figures import figure_png

    log_to_console(is_main=True)
    with user_errors():
        refuse_inputs([args.output], [folder / "diagnosis.jsonl" for folder in args.runs])
        runs = [read_run(folder) for folder in args.runs]
        png = figure_png(diagnosis_figure(runs))
        write_atomically(args.output, lambda file: file.write(png))
        print(f"{args.output} shows {len(runs)} run{'s' if len(runs) > 1 else ''}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
