"""What of a finished cell is kept, so that no machine needs to run it again: small files, in folders and bundles.

cells/<cell>/cell.json       the overrides and the recipe that made it, where it ran, its metrics on test
             metrics.jsonl   the evaluations on val
             matches.npz     outcomes of its detections on the test split
"""

import io
import json
import math
import statistics
import tarfile
import zipfile
import zlib
from operator import methodcaller
from pathlib import Path, PurePosixPath
from typing import IO, Any

from data.errors import DatasetError
from data.files import write_atomically
from data.text_files import read_text
from engine.evaluation.evaluator import match_on
from engine.run.config import Config, ConfigError, parse_config
from engine.run.datasets import evaluation_set
from engine.run.resume import FIXED_GROUPS, FREE_ON_RESUME, config_differences
from engine.run.run_folder import RunFolder
from engine.run.step_lines import read_step_lines
from engine.tools.ablation.grid import Cell, Grid, Result, Results, all_cells
from engine.tools.ablation.kept_matches import KeptMatches
from engine.tools.ablation.tables import metrics_on_test

CELL, HISTORY, MATCHES = "cell.json", "metrics.jsonl", "matches.npz"
GROUPS = (*FIXED_GROUPS, "evaluation")  # of the recipe, on which results depend
FREE = FREE_ON_RESUME - {"schedule.max_steps"} | {"evaluation.batch_size"}  # keys on which they do not
MOST_BYTES = 64 << 20  # of a file in a bundle; a stranger's could unpack to anything


class KeptCells:
    """The finished cells of a grid, in a folder.

    Args:
        folder: `cells` of the output folder.
    """

    def __init__(self, grid: Grid, folder: Path) -> None:
        self.grid, self.folder = grid, folder

    def has(self, cell: Cell, tested: bool) -> bool:
        """Whether the cell is kept, with its test where that is asked for."""
        here = self.folder / cell.name
        return (here / CELL).exists() and (not tested or (here / MATCHES).exists())

    def keep(self, cell: Cell, config: Config) -> None:
        """Keeps a run that ended: with its test where it was evaluated there."""
        here, run = self.folder / cell.name, RunFolder(config)
        test, matches = None, None
        if (detections := run.path / "test_detections.json").exists():
            found = match_on(evaluation_set(config, "test"), detections)
            test, matches = metrics_on_test(found), KeptMatches.of(found)
        whole = config.to_dict()
        record = {
            "overrides": self._overrides(cell)[0],
            "config": {name: whole[name] for name in GROUPS} | {"run": {"seed": config.run.seed}},
            "ran": read_step_lines(run.provenance)[-1],
            "epochs": config.schedule.epochs,
            **_speed_and_clipping(config, run.curves),
            "test": test,
        }
        history = "".join(json.dumps(each) + "\n" for each in run.metrics())
        write_atomically(here / HISTORY, lambda file: file.write(history.encode()))
        text = json.dumps(record, indent=1) + "\n"
        write_atomically(here / CELL, lambda file: file.write(text.encode()))  # now the cell is there
        if matches is not None:
            matches.save(here / MATCHES)  # and now it is tested

    def results(self) -> Results:
        """Results of the cells that are kept, in the order of the grid.

        Raises:
            ConfigError: a cell was made by other overrides than the grid has now.
            DatasetError: a file of a cell cannot be read.
        """
        return {cell: self._result(cell) for cell in all_cells(self.grid) if self.has(cell, tested=False)}

    def matches(self, cell: Cell) -> KeptMatches:
        """Outcomes of a tested cell. Raises DatasetError: the file cannot be read."""
        path = self.folder / cell.name / MATCHES
        return _load_matches(path, str(path))

    def bundle(self, path: Path) -> int:
        """Writes all kept cells to a .tar.gz file; returns their number."""
        cells = [cell for cell in all_cells(self.grid) if self.has(cell, tested=False)]

        def write(file: Any) -> None:
            with tarfile.open(fileobj=file, mode="w:gz") as archive:
                for cell in cells:
                    for each in sorted((self.folder / cell.name).glob("[!.]*")):
                        archive.add(each, f"cells/{cell.name}/{each.name}")

        write_atomically(path, write)
        return len(cells)

    def merge(self, path: Path) -> int:
        """Takes the cells of a bundle that are of this grid and not here yet, or only untested; returns their number.

        Raises:
            ConfigError: not a bundle, or a cell was made by other overrides than the grid has now.
            DatasetError: a file of a cell is damaged. In either case nothing is taken.
        """
        try:
            files = _read_bundle(path)
        except (OSError, tarfile.TarError, EOFError, zlib.error) as error:
            raise ConfigError(f"{path}: not a bundle of cells ({error}); `--bundle` writes one") from error
        taken: dict[Cell, dict[str, bytes]] = {}
        for cell in all_cells(self.grid):
            own = files.get(cell.name, {})
            if CELL not in own or self.has(cell, tested=MATCHES in own):
                continue
            taken[cell] = own
            where = f"{path}: cells/{cell.name}"
            record, history = (own.get(name, b"").decode(errors="replace") for name in (CELL, HISTORY))
            self._result_of(cell, record, history, where)
            if MATCHES in own:
                _load_matches(io.BytesIO(own[MATCHES]), where)
        for cell, own in taken.items():
            for name in (HISTORY, CELL, MATCHES):  # as `keep`
                if name in own:
                    write_atomically(self.folder / cell.name / name, methodcaller("write", own[name]))
        return len(taken)

    def _overrides(self, cell: Cell) -> tuple[list[str], Config]:
        """What makes a cell, wherever it runs, and its configuration."""
        overrides, config = self.grid.cell_config(cell, Path("."))
        own = self.grid.variants[cell.variant].config
        begins_with = [] if own is None else [f"config={own.name}"]
        return begins_with + [text for text in overrides if not text.startswith(("run.dir=", "data.root="))], config

    def _result(self, cell: Cell) -> Result:
        here = self.folder / cell.name
        return self._result_of(cell, read_text(here / CELL), read_text(here / HISTORY), str(here))

    def _result_of(self, cell: Cell, text: str, history_text: str, where: str) -> Result:
        """From the contents of its two files; `where` names them in errors."""
        overrides, config = self._overrides(cell)
        try:
            record, history = json.loads(text), [json.loads(line) for line in history_text.splitlines()]
            made_by, test = record["overrides"], record["test"]
            arithmetic = _arithmetic(record["ran"])
            result = Result(cell, history, test, float(record["step_ms"]), record["clipped"], arithmetic)
            result.val_ap  # noqa: B018  a cell without an evaluation is none
            groups = record.get("config", {})  # since 0.2; of the evaluation a little later
            stored = parse_config(groups, where) if groups else config
        except ConfigError as error:
            raise ConfigError(f"{error}; the cell is of another version of this project") from error
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            raise DatasetError(f"{where}: not a kept cell ({error!r}); remove it to run it again") from error
        differing = sorted(set(made_by) ^ set(overrides))
        of_both = [name for name in GROUPS if name in groups]
        differing += config_differences(config.to_dict(), stored.to_dict(), of_both, FREE)
        if differing:
            raise ConfigError(
                f"{where}: was made by other settings than the grid's ({', '.join(differing)}); take another --output, "
                f"or remove it and runs/{cell.name} to run it again"
            )
        return result


def _load_matches(file: Path | IO[bytes], where: str) -> KeptMatches:
    try:
        return KeptMatches.load(file)
    except (OSError, EOFError, ValueError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise DatasetError(f"{where}: not the matches of a run ({error}); remove it to run the cell again") from error


def _arithmetic(ran: dict[str, str]) -> str:
    """From a run's provenance; two CPUs of one precision count as one, as PyTorch's sums differ by rounding alone."""
    device = ran.get("device", "unknown")
    return f"{'cpu' if device.startswith('cpu') else device.partition(',')[0]}, {ran.get('precision', 'unknown')}"


def _read_bundle(path: Path) -> dict[str, dict[str, bytes]]:
    """cell -> file -> content; what else there may be in the archive is passed over."""
    files: dict[str, dict[str, bytes]] = {}
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:
            parts = PurePosixPath(member.name).parts
            wanted = len(parts) == 3 and parts[0] == "cells" and parts[2] in (CELL, HISTORY, MATCHES)
            content = archive.extractfile(member) if wanted and member.isreg() and member.size <= MOST_BYTES else None
            if content is not None:
                files.setdefault(parts[1], {})[parts[2]] = content.read()
    return files


def _speed_and_clipping(config: Config, curves: Path) -> dict[str, float | None]:
    points = read_step_lines(curves)
    if not points:  # a run that ended before run.log_every steps
        return {"step_ms": math.nan, "clipped": None}
    speed = statistics.median(point["images_per_second"] for point in points)
    limit, norms = config.optimizer.clip_grad_norm, [point["grad_norm"] for point in points]
    clipped = None if limit is None else sum(norm is None or norm > limit for norm in norms) / len(norms)
    return {"step_ms": 1e3 * config.data.batch_size / speed, "clipped": clipped}
