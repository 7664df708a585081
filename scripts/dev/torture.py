"""Kills a small run again and again, resumes it each time, and compares the end with an undisturbed run bit for bit.

python scripts/dev/torture.py --kills 60
python scripts/dev/torture.py --kills 20 --processes 3 --seed 1 --folder torture

Half of the kills (SIGKILL) come at a random moment after the start: loading, steps, evaluation. The other half come a
random while after a checkpoint began to be written. Of several processes all are killed or a random one, as a host or
a process dies. Processes are forked from one that has imported everything, so that a start takes no ten seconds.
Exit status: 0 no difference, 1 a difference or a run that failed.
"""

import random
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from engine.run.cli import ArgumentParser

IMAGES = {"train": 36, "val": 4}  # six steps an epoch, of six images: for one, two and three processes


def main() -> int:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument(
        "--kills", type=int, default=60, metavar="N", help="in total, over all numbers of processes (60)"
    )
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 3], metavar="P", help="(1 2 3)")
    parser.add_argument("--epochs", type=int, default=4, metavar="E", help="length of a run, six steps each (4)")
    parser.add_argument("--seed", type=int, default=0, metavar="K", help="of the moments (0)")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="keep data, runs and outputs there")
    args = parser.parse_args()

    from killed_runs import torture

    from data.synthetic.shapes import generate_shapes

    choose = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        generate_shapes(folder / "data", IMAGES, image_size=64, seed=1)
        shares = [args.kills // len(args.processes)] * len(args.processes)
        shares[0] += args.kills - sum(shares)
        same = [torture(folder, p, kills, args.epochs, choose) for p, kills in zip(args.processes, shares, strict=True)]
    print("no difference" if all(same) else "DIFFERENCES")
    return 0 if all(same) else 1


if __name__ == "__main__":
    sys.exit(main())
