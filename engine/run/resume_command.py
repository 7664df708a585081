"""A run continued by its folder alone: the command line that does it, and the configuration that it takes."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from data.errors import DatasetError
from data.yaml_files import read_yaml
from engine.run.config import Config, ConfigError, parse_config
from engine.run.old_formats import upgraded_config

CONFIG_FILE = "config.yaml"  # in the run folder, the resolved configuration


def resume_command(folder: Path) -> str:
    """The command line that continues the run as it was begun, on as many processes of this host as now."""
    command = f"train.py --resume {shlex.quote(str(folder))}"
    processes, here = (int(os.environ.get(name, 1)) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    if processes == 1:
        return f"python {command}"
    # what joins several hosts is known to torchrun alone
    return f"torchrun {'--nnodes … ' if processes > here else ''}--nproc-per-node {here} {command}"


def stored_config(folder: str, overrides: Sequence[str] = ()) -> Config:
    """The configuration that the run in a folder was last started with, under `KEY=VALUE` overrides.

    The folder may have been moved: `run.dir` and `run.name` are where it is now.

    Raises:
        ConfigError: no run there, a file that is no configuration of this version, or overrides that name another
            run folder.
    """
    path = Path(folder)
    if not path.is_dir():
        needed = "give --config too" if path.is_file() else "check the path, or give --config"
        raise ConfigError(f"--resume {folder}: not the folder of a run; {needed}")
    if not path.name or path.name == "..":
        path = path.resolve()
    file = path / CONFIG_FILE
    if not file.is_file():
        raise ConfigError(f"--resume {folder}: holds no {CONFIG_FILE}, so no run began there; check the path")
    moving = [each for each in overrides if each.partition("=")[0] in ("run", "run.dir", "run.name")]
    if moving:
        raise ConfigError(f"{moving[0]}: --resume {folder} continues in that folder; for another run give --config")
    try:
        values = read_yaml(file)
    except DatasetError as error:
        raise ConfigError(str(error)) from error
    if not isinstance(values, dict) or not isinstance(values.get("run"), dict):
        raise ConfigError(f"{file}: not the configuration of a run; give --config")
    values = upgraded_config(values)
    values["run"] = values["run"] | {"dir": str(path.parent), "name": path.name}
    return parse_config(values, str(file), overrides)
