"""The runs of an ablation: cells trained and tested in processes of their own, results read back, the report."""

import csv
import io
import logging
import os
import queue
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from data.files import write_atomically
from data.output_folder import OutputFolder
from data.text_files import read_json
from engine.run.run_folder import RunFolder
from engine.tools.ablation import (
    Cell,
    Grid,
    Result,
    chosen_cells,
    csv_rows,
    markdown_table,
    metrics_with_correlation,
    search_cells,
)
from engine.tools.ablation_figures import FIGURES, draw_figures, variant_colors

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[2]
REPORT_FILES = ("table.md", "results.csv", *FIGURES)


class Runner:
    """Runs cells, several at a time, each in a process of its own.

    Args:
        output: folder; the runs go to `output/runs`, what they print to `output/logs`.
        processes: cells at a time. They share GPUs or CPU cores evenly.
    """

    def __init__(self, grid: Grid, output: Path, processes: int) -> None:
        self.grid, self.runs, self.logs, self.processes = grid, output / "runs", output / "logs", processes
        self.logs.mkdir(parents=True, exist_ok=True)
        self.slots: queue.Queue[int] = queue.Queue()
        for slot in range(processes):
            self.slots.put(slot)
        self.running: set[subprocess.Popen] = set()
        self.stopped = False

    def run(self, cells: list[Cell], test: bool, bar) -> list[Cell]:
        """Trains the cells, and with `test` evaluates them on the test split; returns those that failed."""
        with ThreadPoolExecutor(self.processes) as pool:
            jobs = {cell: pool.submit(self._run_cell, cell, test) for cell in cells}
            failed = []
            try:
                for cell, job in jobs.items():
                    if not job.result():
                        failed.append(cell)
                    bar.update()
            except KeyboardInterrupt:
                self.stopped = True
                for process in list(self.running):
                    process.terminate()  # a training writes its checkpoint and ends
                pool.shutdown(cancel_futures=True)
                raise
        return failed

    def _run_cell(self, cell: Cell, test: bool) -> bool:
        slot = self.slots.get()
        try:
            overrides, config = self.grid.cell_config(cell, self.runs)
            run = self.runs / cell.name
            history = RunFolder(config).metrics()
            if not history or history[-1]["epoch"] < config.schedule.epochs:
                line = ["train.py", "--config", self.grid.config, "--resume", "auto", *overrides]
                if not self._call(line, cell, slot):
                    return False
            if test and not (run / "test.json").exists():
                line = ["eval.py", "--ckpt", run / "checkpoints" / "last.pt", "--split", "test"]
                return self._call(
                    [*line, "--detections", run / "test_detections.json", "--json", run / "test.json"], cell, slot
                )
            return True
        finally:
            self.slots.put(slot)

    def _call(self, line: list[object], cell: Cell, slot: int) -> bool:
        if self.stopped:
            return False
        environment = dict(os.environ)
        if torch.cuda.is_available():
            environment["CUDA_VISIBLE_DEVICES"] = str(slot % torch.cuda.device_count())
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // self.processes)))
        with open(self.logs / f"{cell.name}.log", "a") as output:
            command = [sys.executable, *map(str, line)]
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
        self.running.add(process)
        status = process.wait()
        self.running.discard(process)
        if status and not self.stopped:
            log.warning("%s: status %d; see %s", cell.name, status, self.logs / f"{cell.name}.log")
        return status == 0


def read_results(grid: Grid, output: Path) -> dict[Cell, Result]:
    """Results of the cells whose training ended."""
    results: dict[Cell, Result] = {}
    for rate in grid.learning_rates:
        for variant in grid.variants:
            for seed in grid.seeds:
                cell = Cell(variant, rate, seed)
                run = output / "runs" / cell.name
                _, config = grid.cell_config(cell, output / "runs")
                history = RunFolder(config).metrics()
                if history and history[-1]["epoch"] >= config.schedule.epochs:
                    results[cell] = Result(cell, history, _read_test(config, run), _step_ms(config, run))
    return results


def _read_test(config, run: Path) -> dict[str, float] | None:
    if not (run / "test.json").exists():
        return None
    annotations = Path(config.data.root) / "annotations" / f"instances_{config.data.test_split}.json"
    return metrics_with_correlation(annotations, read_json(run / "test.json"), run / "test_detections.json")


def _step_ms(config, run: Path) -> float:
    points = EventAccumulator(str(run)).Reload().Scalars("perf/images_per_second")
    return 1e3 * config.data.batch_size / statistics.median(point.value for point in points)


def write_report(grid: Grid, output: Path) -> None:
    """Writes table.md, results.csv and the plots, and prints the table."""
    results = read_results(grid, output)
    table = markdown_table(grid, results)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(csv_rows(grid, results))
    OutputFolder(output).claim(REPORT_FILES)
    write_atomically(output / "table.md", lambda file: file.write((table + "\n").encode()))
    write_atomically(output / "results.csv", lambda file: file.write(text.getvalue().encode()))
    chosen = chosen_cells(grid, results)
    tested = [cell for cell in chosen if cell in results and results[cell].test is not None]
    written = [output / "table.md", output / "results.csv"]
    if tested:
        written += draw_figures(tested, results, output / "runs", output, variant_colors(grid.variants))
    print(table)
    done = results.keys() & {*search_cells(grid), *chosen}  # others are of an earlier choice
    print(f"\n{len(done)} of {grid.size} cells; written: {', '.join(map(str, written))}")
