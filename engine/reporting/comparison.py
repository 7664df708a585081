"""Several runs side by side: their results, and the settings in which they differ."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.text_files import read_lines
from data.yaml_files import read_yaml
from engine.metrics.report import format_number
from engine.run.config import ConfigError

METRICS = ("AP", "AP50", "AP75", "oLRP", "oLRP_loc", "oLRP_fp", "oLRP_fn")
RUN_FILES = ("config.yaml", "metrics.jsonl")  # of a run folder that are read
IRRELEVANT = ("run.dir", "run.name", "data.workers", "data.cache")  # settings without influence on the result


@dataclass(frozen=True)
class Run:
    """A run folder's content.

    Attributes:
        name: distinct among the runs compared.
        settings: dotted key -> value of its config.yaml.
        evaluations: lines of its metrics.jsonl, oldest first; may be empty.
    """

    name: str
    settings: dict[str, Any]
    evaluations: list[dict[str, Any]]


def read_runs(folders: Sequence[str | Path]) -> list[Run]:
    """The runs in these folders, in order, each once, named by folder, with its parents' names where names repeat.

    Raises:
        ConfigError: a folder is no run folder, or a file in it is damaged.
    """
    paths = list(dict.fromkeys(Path(folder).resolve() for folder in folders))
    depth = 1
    while len({path.parts[-depth:] for path in paths}) < len(paths):
        depth += 1
    return [_read_run(path, "/".join(path.parts[-depth:])) for path in paths]


def format_comparison(runs: Sequence[Run]) -> str:
    """A table of every run's last and best evaluation, and one of the settings in which the runs differ."""
    width = max(len("run"), *(len(run.name) for run in runs))
    lines = [f"{'run':<{width}}  {'epoch':>5}" + "".join(f"{name:>9}" for name in METRICS) + f"{'best AP':>14}"]
    for run in runs:
        if not run.evaluations:
            lines.append(f"{run.name:<{width}}  not evaluated yet")
            continue
        last, best = run.evaluations[-1], max(run.evaluations, key=lambda record: record["AP"])
        numbers = "".join(f"{format_number(last[name]):>9}" for name in METRICS)
        best_ap = f"{format_number(best['AP'])} ({best['epoch']})"
        lines.append(f"{run.name:<{width}}  {last['epoch']:>5}{numbers}{best_ap:>14}")
    lines.append("Values of the last evaluation; best AP with its epoch.")
    differences = differing_settings(runs)
    if len(runs) > 1:
        lines += ["", *(_settings_table(differences, runs) if differences else ["The runs have the same settings."])]
    return "\n".join(lines)


def differing_settings(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Dotted key -> value of each run, for keys in which the runs differ; None where a run lacks the key."""
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    values = {key: [run.settings.get(key) for run in runs] for key in keys if key not in IRRELEVANT}
    return {key: row for key, row in values.items() if any(value != row[0] for value in row)}


def _settings_table(differences: dict[str, list[Any]], runs: Sequence[Run]) -> list[str]:
    header = ["setting", *(run.name for run in runs)]
    rows = [header, *([key, *(_text(value) for value in row)] for key, row in differences.items())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _text(value: Any) -> str:
    return "null" if value is None else str(value)


def _read_run(path: Path, name: str) -> Run:
    config, metrics = (path / name for name in RUN_FILES)
    if not config.is_file():
        raise ConfigError(f"{path}: no run folder: it has no config.yaml; name folders such as runs/quickstart")
    try:
        settings = _flatten(read_yaml(config))
        evaluations = [json.loads(line) for line in read_lines(metrics)] if metrics.exists() else []
    except (ValueError, AttributeError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path}: config.yaml or metrics.jsonl is damaged ({reason}); train the run again") from error
    missing = [
        key
        for record in evaluations
        for key in ("epoch", *METRICS)
        if not (isinstance(record, dict) and isinstance(record.get(key), int | float))
    ]
    if missing:
        raise ConfigError(f"{metrics}: an evaluation lacks {missing[0]!r}; train the run again")
    return Run(name, settings, evaluations)


def _flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
