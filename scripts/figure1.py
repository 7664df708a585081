"""Recomputes Figure 1 of the paper with this project's losses and evaluation, beside the published numbers.

python scripts/figure1.py
python scripts/figure1.py --output figures

Three detectors score the same ten anchors alike and differ in how well the four positives are localised. AP and aLRP
tell them apart; cross entropy, AP Loss and the box losses do not. Exits 1 if a number that can be derived differs from
the published one by more than its rounding. (The paper's L1 column needs box coordinates that it does not give.)
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from engine.run.cli import ArgumentParser, user_errors


def main() -> int:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--output", metavar="DIR", help="draw the figure there too, as figure1.png")
    args = parser.parse_args()

    from data.files import write_atomically
    from data.output_folder import OutputFolder
    from engine.tools.figure1 import differences, draw, format_table, recompute_table

    table = recompute_table()
    print(format_table(table))
    if args.output:
        with user_errors():
            OutputFolder(args.output).claim(["figure1.png"])
            write_atomically(Path(args.output, "figure1.png"), lambda file: draw(table).savefig(file, dpi=100))
    wrong = differences(table)
    for line in wrong:
        print(f"differs: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
