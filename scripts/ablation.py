"""Runs a grid of losses, learning rates and seeds, and writes the table, the CSV file and the plots.

python scripts/ablation.py --grid configs/ablations/bccd.yaml --output runs/ablation_bccd
python scripts/ablation.py --grid configs/ablations/bccd.yaml --output runs/ablation_bccd --report

Interrupt it as you like (Ctrl-C, SIGTERM): the same command continues, finished cells are skipped. Every variant is
first run at every learning rate; the best on val then runs with the other seeds, and is evaluated on the test split.
What is kept of a finished cell, its metrics and the outcomes of its detections, is in DIR/cells: some kilobytes,
which go to another machine as a bundle.
"""

import logging
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from engine.run.cli import ArgumentParser, log_to_console, user_errors


def main() -> int:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--grid", required=True, metavar="FILE", help="grid, such as configs/ablations/bccd.yaml")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder of the runs and of the report")
    parser.add_argument(
        "--processes", type=int, metavar="N", help="cells at a time (default: one per GPU, or per core)"
    )
    parser.add_argument("--minutes", type=float, metavar="M", help="start no cell that would end later; then stop")
    parser.add_argument("--merge", nargs="+", default=[], metavar="FILE", help="first take the cells of these bundles")
    parser.add_argument("--bundle", metavar="FILE", help="at the end write the cells that ended to this .tar.gz file")
    parser.add_argument("--report", action="store_true", help="run nothing, report what there is")
    args = parser.parse_args()
    if args.processes is not None and args.processes < 1:
        parser.error("--processes must be positive")

    import torch

    from data.cpus import usable_cpus
    from data.output_folder import OutputFolder, refuse_inputs
    from engine.run.config import ConfigError
    from engine.run.progress import progress
    from engine.run.run_lock import RunLock
    from engine.tools.ablation.cells import KeptCells
    from engine.tools.ablation.grid import load_grid, search_cells
    from engine.tools.ablation.runs import REPORT_FILES, Runner, run_grid, write_report
    from engine.tools.ablation.time_limit import TimeLimit

    log_to_console(is_main=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does, and its cells with it
    logging.getLogger("tensorboard").setLevel(logging.WARNING)  # it tells of every file that it reads
    with user_errors():
        limit = TimeLimit(args.minutes)
        grid, output = load_grid(args.grid), Path(args.output).resolve()
        for cell in search_cells(grid):
            _, config = grid.cell_config(cell, output)  # a mistake in any shows before hours of work
            if config.data.test_split is None and not (grid.lengths or args.report):
                raise ConfigError(f"{args.grid}: cells are tested, and data.test_split is null; add it to overrides")
        OutputFolder(output).check(REPORT_FILES)
        refuse_inputs([args.bundle], args.merge)
        failed = []
        with RunLock(output, "--output"):
            cells = KeptCells(grid, output / "cells")
            for bundle in args.merge:
                print(f"{bundle}: {cells.merge(Path(bundle))} cells that were not here")
            if not args.report:
                runner = Runner(grid, output, args.processes or torch.cuda.device_count() or usable_cpus(), limit)
                with progress(total=grid.size, desc="ablation", unit="cell") as bar:
                    failed = run_grid(grid, runner, bar)
                if runner.left_out or runner.stopped:
                    print(f"the time is over: {runner.left_out} cells were not begun; the same command goes on")
            write_report(grid, output)
            if args.bundle:
                print(f"{args.bundle}: {cells.bundle(Path(args.bundle))} cells")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
