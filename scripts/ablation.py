"""Runs a grid of losses, learning rates and seeds, and writes the table, the CSV file and the plots.

python scripts/ablation.py --grid configs/ablations/bccd.yaml --output runs/ablation_bccd
python scripts/ablation.py --grid configs/ablations/bccd.yaml --output runs/ablation_bccd --report

Interrupt it as you like (Ctrl-C, SIGTERM): the same command continues, finished cells are skipped. Every variant is
first run at every learning rate; the best on val then runs with the other seeds, and is evaluated on the test split.
"""

import logging
import os
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
    parser.add_argument("--report", action="store_true", help="run nothing, report what there is")
    args = parser.parse_args()

    import torch

    from data.output_folder import OutputFolder
    from engine.run.progress import progress
    from engine.tools.ablation import chosen_cells, load_grid, search_cells
    from engine.tools.ablation_runs import REPORT_FILES, Runner, read_results, write_report

    log_to_console(is_main=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does, and its cells with it
    logging.getLogger("tensorboard").setLevel(logging.WARNING)  # it tells of every file that it reads
    with user_errors():
        grid, output = load_grid(args.grid), Path(args.output).resolve()
        for cell in search_cells(grid):
            grid.cell_config(cell, output)  # a mistake in any shows before hours of work
        OutputFolder(output).check(REPORT_FILES)
        failed = []
        if not args.report:
            runner = Runner(grid, output, args.processes or torch.cuda.device_count() or os.cpu_count() or 1)
            with progress(total=grid.size, desc="ablation", unit="cell") as bar:
                failed = runner.run(search_cells(grid), test=False, bar=bar)
                results = read_results(grid, output)
                chosen = chosen_cells(grid, results)
                bar.update(-sum(cell.seed == grid.seeds[0] for cell in chosen))  # these now get their test
                failed += runner.run(chosen, test=True, bar=bar)
        write_report(grid, output)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
