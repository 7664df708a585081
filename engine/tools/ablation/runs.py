"""The runs of an ablation: cells trained and tested in processes of their own, kept as they end, and the report."""

import csv
import io
import logging
import os
import queue
import subprocess
import sys
import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import torch

from data.cpus import usable_cpus
from data.files import write_atomically
from data.output_folder import OutputFolder
from engine.run.config import Config, ConfigError, load_config
from engine.run.old_formats import former_defaults
from engine.run.resume import config_differences
from engine.run.resume_command import stored_config
from engine.run.run_folder import RunFolder
from engine.run.step_lines import read_step_lines
from engine.tools.ablation.cells import KeptCells
from engine.tools.ablation.choice import chosen_cells, rates_at_the_edge, ready_cells
from engine.tools.ablation.figures import FIGURES, LENGTHS, draw_figures, draw_lengths, variant_colors
from engine.tools.ablation.grid import Cell, Grid, search_cells
from engine.tools.ablation.lengths import length_curves, length_table
from engine.tools.ablation.tables import csv_rows, markdown_table
from engine.tools.ablation.time_limit import FIRST_LOOK, TimeLimit

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[3]
REPORT_FILES = ("table.md", "results.csv", *FIGURES, LENGTHS)


class Runner:
    """Runs cells, several at a time, each in a process of its own. Cells that are kept are not run again.

    Args:
        output: folder; the runs go to `output/runs`, what they print to `output/logs`, what is kept of those that end
            to `output/cells`.
        processes: cells at a time. They share GPUs or CPU cores evenly; a GPU may have several.
        limit: no cell starts that will not end before it; those that run then stop with a checkpoint.
    """

    def __init__(self, grid: Grid, output: Path, processes: int, limit: TimeLimit) -> None:
        self.grid, self.runs, self.logs, self.processes = grid, output / "runs", output / "logs", processes
        self.limit, self.cells = limit, KeptCells(grid, output / "cells")
        self.logs.mkdir(parents=True, exist_ok=True)
        self.slots: queue.Queue[int] = queue.Queue()
        for slot in range(processes):
            self.slots.put(slot)
        self.running: set[subprocess.Popen] = set()
        self.stopped = False
        self.left_out = 0  # for want of time

    def run(self, bar: Any) -> list[Cell]:
        """Runs the cells that are ready, then those that become so, until there are none; returns those that failed."""
        alarm = None
        if self.limit.seconds_left < threading.TIMEOUT_MAX:
            alarm = threading.Timer(max(0.0, self.limit.seconds_left), self.stop)
            alarm.start()
        jobs: dict[Future[bool], Cell] = {}
        begun: set[tuple[Cell, bool]] = set()
        counted: set[Cell] = set()
        failed: list[Cell] = []
        try:
            with ThreadPoolExecutor(self.processes) as pool:
                try:
                    while True:
                        ready = ready_cells(self.grid, self.cells.results(), failed)
                        # No more than can begin: what becomes ready meanwhile may come before the others.
                        new = [each for each in ready if each not in begun][: self.processes - len(jobs)]
                        begun.update(new)
                        jobs |= {pool.submit(self._run_cell, cell, test): cell for cell, test in new}
                        if not jobs:
                            return failed
                        for job in wait(jobs, return_when=FIRST_COMPLETED).done:
                            cell = jobs.pop(job)
                            if not job.result() and not self.stopped:
                                failed.append(cell)
                            bar.update(cell not in counted)  # with a test it is the same cell
                            counted.add(cell)
                except KeyboardInterrupt:
                    self.stop()
                    raise
        finally:
            if alarm is not None:
                alarm.cancel()

    def stop(self) -> None:
        """Starts nothing more, and has what runs write its checkpoint and end."""
        self.stopped = True
        for process in list(self.running):
            process.terminate()

    def _run_cell(self, cell: Cell, test: bool) -> bool:
        if self.cells.has(cell, test):
            return True
        slot = self.slots.get()
        try:
            overrides, config = self.grid.cell_config(cell, self.runs)
            if self.stopped or not self.limit.fits(config.schedule.epochs):
                self.left_out += 1
                return True
            began, fresh = time.monotonic(), not (self.runs / cell.name).exists()
            watch = threading.Timer(FIRST_LOOK, self._look, (config,))
            watch.daemon = True
            watch.start()
            done = self._train(cell, overrides, config, slot) and (not test or self._test(cell, slot))
            watch.cancel()
            if done:
                self.cells.keep(cell, config)
                if fresh:
                    self.limit.ended(time.monotonic() - began, config.schedule.epochs)
            return done
        finally:
            self.slots.put(slot)

    def _train(self, cell: Cell, overrides: list[str], config: Config, slot: int) -> bool:
        run = RunFolder(config)
        history = run.metrics()
        if history and history[-1]["epoch"] >= config.schedule.epochs:
            return self._is_of(cell, overrides, run.path)
        line = [ROOT / "train.py", "--config", self.grid.config_of(cell.variant), "--resume", "auto", *overrides]
        return self._call(line, cell, slot)

    def _is_of(self, cell: Cell, overrides: list[str], run: Path) -> bool:
        """Whether a finished run is what the cell would be; if not, a warning says why."""
        try:
            stored = stored_config(str(run)).to_dict()
            config = load_config(self.grid.config_of(cell.variant), overrides, below=former_defaults(stored))
            other = config_differences(config.to_dict(), stored)
        except ConfigError as error:
            log.warning("%s", error)
            return False
        if other:
            log.warning("%s: trained by other settings: %s; remove it to run it again", run, "; ".join(other))
        return not other

    def _test(self, cell: Cell, slot: int) -> bool:
        run = self.runs / cell.name
        outputs = ["--detections", run / "test_detections.json", "--json", run / "test.json"]
        line = [ROOT / "eval.py", "--ckpt", run / "checkpoints" / "last.pt", "--split", "test", *outputs]
        return (run / "test.json").exists() or self._call(line, cell, slot)

    def _look(self, config: Config) -> None:
        """Tells the limit how fast a cell is that began a minute ago, by its last point on the curves."""
        points = read_step_lines(RunFolder(config).curves)
        if points and points[-1]["epoch"] > 0 and self.limit.expected(1) is None:
            self.limit.estimate(points[-1]["seconds"] / points[-1]["epoch"])
            minutes = (self.limit.expected(config.schedule.epochs) or 0) / 60
            log.info("a cell of %d epochs takes about %.1f minutes", config.schedule.epochs, minutes)

    def _call(self, line: list[object], cell: Cell, slot: int) -> bool:
        if self.stopped:
            return False
        environment = dict(os.environ)
        if torch.cuda.is_available():
            count, visible = torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES")
            devices = visible.split(",") if visible else [str(index) for index in range(count)]
            environment["CUDA_VISIBLE_DEVICES"] = devices[slot % count]
        environment.setdefault("OMP_NUM_THREADS", str(max(1, usable_cpus() // self.processes)))
        with open(self.logs / f"{cell.name}.log", "a") as output:
            command = [sys.executable, *map(str, line)]
            process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        self.running.add(process)
        if self.stopped:  # while the process started: `stop` has not seen it
            process.terminate()
        status = process.wait()
        self.running.discard(process)
        if status and not self.stopped:
            log.warning("%s: status %d; see %s", cell.name, status, self.logs / f"{cell.name}.log")
        return status == 0


def run_grid(grid: Grid, runner: Runner, bar: Any) -> list[Cell]:
    """Searches the rates, and trains and tests every variant at its best, those of a grid of lengths without a test;
    returns the cells that failed."""
    failed = runner.run(bar)
    if not (runner.stopped or runner.left_out):
        for variant, rate in rates_at_the_edge(grid, runner.cells.results()).items():
            log.warning("%s: its best rate, %g, is the last one tried; add a rate beyond it", variant, rate)
    return failed


def write_report(grid: Grid, output: Path) -> None:
    """Writes table.md, results.csv and the plots of the cells that are kept, and prints the table."""
    results = KeptCells(grid, output / "cells").results()
    curves = length_curves(grid, results)
    table = length_table(grid, curves) if grid.lengths else markdown_table(grid, results)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(csv_rows(grid, results))
    OutputFolder(output).claim(REPORT_FILES)
    write_atomically(output / "table.md", lambda file: file.write((table + "\n").encode()))
    write_atomically(output / "results.csv", lambda file: file.write(text.getvalue().encode()))
    chosen = chosen_cells(grid, results)
    tested = [cell for cell in chosen if cell in results and results[cell].test is not None]
    written = [output / "table.md", output / "results.csv"]
    colors = variant_colors(grid.variants)
    if tested:
        written += draw_figures(tested, results, output / "runs", output, colors)
    if curves:
        written.append(draw_lengths(curves, grid.reference, output, colors))
    print(table)
    done = results.keys() & {*search_cells(grid), *chosen}  # others are of an earlier choice
    print(f"\n{len(done)} of {grid.size} cells; written: {', '.join(map(str, written))}")
