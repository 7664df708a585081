"""Draws the diagnoses of one or several runs side by side (runs that were trained with run.diagnose=true).

python scripts/plot_diagnosis.py runs/mine
python scripts/plot_diagnosis.py runs/mine runs/mine_lower_rate --output diagnosis.png
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from engine.run.cli import ArgumentParser, log_to_console, user_errors

PICTURE = "diagnosis.png"


def main() -> int:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", type=Path, help="run folder, such as runs/mine")
    parser.add_argument("--output", metavar="PNG", help=f"picture (default: {PICTURE}, if it does not exist yet)")
    args = parser.parse_args()

    from data.files import write_atomically
    from data.output_folder import OutputError, refuse_inputs
    from engine.diagnosis.figure import diagnosis_figure, read_run
    from engine.reporting.figures import figure_png

    log_to_console(is_main=True)
    output = Path(args.output or PICTURE)
    with user_errors():
        if not args.output and os.path.lexists(output):
            raise OutputError(f"{output}: exists; name another file with --output, or this one to replace it")
        refuse_inputs([output], [folder / "diagnosis.jsonl" for folder in args.runs])
        runs = [read_run(folder) for folder in args.runs]
        png = figure_png(diagnosis_figure(runs))
        write_atomically(output, lambda file: file.write(png))
        print(f"{output} shows {len(runs)} run{'s' if len(runs) > 1 else ''}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
