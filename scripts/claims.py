"""Tests whether the reference loss of ablations is ahead of the variants that their grids claim it is ahead of.

python scripts/claims.py --grid configs/ablations/proof/bccd_cpu.yaml=runs/proof_bccd_cpu
python scripts/claims.py --grid configs/ablations/proof/bccd.yaml=runs/a configs/ablations/proof/deeppcb.yaml=runs/b

Prints a table: the paired difference in AP, Student's interval over the seeds and a bootstrap's over images and seeds,
both p-values, and Holm's correction over all claims of all grids. Grids without claims give differences and intervals
alone. A second table has the paired differences in AP at
single IoUs, in oLRP and its parts (lower is better), and in ρ, the correlation of score and IoU: they say why, and are
no claims. Only what is kept of the runs is read.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from engine.run.cli import ArgumentParser, user_errors


def main() -> int:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument(
        "--grid", nargs="+", required=True, metavar="GRID=DIR", help="grid files with the folders of their runs"
    )
    parser.add_argument("--draws", type=int, default=2000, metavar="N", help="of the bootstrap (2000)")
    args = parser.parse_args()
    if args.draws < 1:
        parser.error("--draws must be positive")

    from engine.run.config import ConfigError
    from engine.run.progress import progress
    from engine.tools.ablation.cells import KeptCells
    from engine.tools.ablation.claims import claims_of, claims_table, compared_variants, parts_table
    from engine.tools.ablation.grid import load_grid

    with user_errors():
        kept = {}
        for pair in args.grid:
            path, separator, folder = pair.partition("=")
            if not separator:
                raise ConfigError(f"--grid {pair}: not of the form GRID=DIR")
            name = Path(path).stem if Path(path).stem not in kept else pair
            if args.grid.count(pair) > 1:
                raise ConfigError(f"--grid {pair}: given twice; every grid counts once")
            kept[name] = KeptCells(load_grid(path), Path(folder) / "cells")
        claims = []
        count = sum(len(compared_variants(cells.grid)) for cells in kept.values())
        with progress(total=count, desc="claims", unit="claim") as bar:
            for name, cells in kept.items():
                for claim in claims_of(cells, name, args.draws):
                    claims.append(claim)
                    bar.update()
        references = {name: cells.grid.reference for name, cells in kept.items()}
        print(f"{claims_table(claims, references)}\n\n{parts_table(claims, references)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
