"""The folder of one run: what is in it, who may write it, and what a resumed run may change."""

import json
from pathlib import Path
from typing import Any

import yaml

from engine.checkpoint import CheckpointError, load_checkpoint, write_atomically
from engine.config import Config, ConfigError, parse_config

# keys that a resumed run may change although their group must stay the same
FREE_ON_RESUME = {"data.root", "data.workers", "schedule.max_steps"}
FIXED_GROUPS = ("model", "loss", "data", "optimizer", "schedule")


class RunFolder:
    """`<run.dir>/<run.name>/` with config.yaml, metrics.jsonl, train_batch.png, TensorBoard events and
    checkpoints/{last,best}.pt."""

    def __init__(self, config: Config) -> None:
        self.path = Path(config.run.dir) / str(config.run.name)
        self.last = self.path / "checkpoints" / "last.pt"
        self.best = self.path / "checkpoints" / "best.pt"
        self.batch_picture = self.path / "train_batch.png"
        self._metrics = self.path / "metrics.jsonl"

    def find_checkpoint(self, resume: str | None, overwrite: bool) -> dict[str, Any] | None:
        """The checkpoint that this run continues from, None for a fresh start. Reads only.

        Args:
            resume: "auto" (last.pt where there is one, else best.pt, else afresh), a checkpoint file, or None.
            overwrite: whether an existing run may be replaced.
        Raises:
            ConfigError: the run exists and neither `--resume` nor `--overwrite` is given.
            CheckpointError: the checkpoint cannot be used.
        """
        if resume is None:
            if not overwrite and self._files():
                raise ConfigError(
                    f"{self.path}: this run exists; continue it with --resume auto, replace it with --overwrite, "
                    "or choose another run.name"
                )
            return None
        if resume == "auto":
            newest = next((path for path in (self.last, self.best) if path.exists()), None)
            return None if newest is None else load_checkpoint(newest)
        return load_checkpoint(resume)

    def begin(self, config: Config, step: int, evaluated_step: int) -> None:
        """Makes the folder ready for a run that continues after `step` steps, the newest evaluation being that of
        `evaluated_step`; what an interrupted run wrote later is dropped. Step 0 removes what an earlier run left."""
        if step == 0:
            for path in self._files():
                path.unlink()
        self.path.mkdir(parents=True, exist_ok=True)
        kept = [record for record in self.metrics() if record["step"] <= evaluated_step]
        self._write_metrics(kept)
        text = yaml.safe_dump(config.to_dict(), sort_keys=False)
        write_atomically(self.path / "config.yaml", lambda file: file.write(text.encode()))

    def metrics(self) -> list[dict[str, Any]]:
        """The evaluations so far, oldest first."""
        if not self._metrics.exists():
            return []
        return [json.loads(line) for line in self._metrics.read_text(encoding="utf-8").splitlines()]

    def add_metrics(self, record: dict[str, Any]) -> None:
        self._write_metrics([*self.metrics(), record])

    def _write_metrics(self, records: list[dict[str, Any]]) -> None:
        text = "".join(json.dumps(record) + "\n" for record in records)
        write_atomically(self._metrics, lambda file: file.write(text.encode()))

    def _files(self) -> list[Path]:
        """What an earlier run wrote here; files of other origin are never touched."""
        own = [self.path / "config.yaml", self._metrics, self.batch_picture, self.last, self.best]
        events = sorted(self.path.glob("events.out.tfevents.*"))
        return [path for path in (*own, *events) if path.exists()]


def require_same_recipe(config: Config, state: dict[str, Any], source: str) -> None:
    """Refuses a resume that would change what is being trained. Raises ConfigError naming the first difference."""
    try:
        saved = parse_config(state["config"], source)
    except ConfigError as error:
        raise CheckpointError(f"{error}; the checkpoint is of another version of this project") from error
    now, before = config.to_dict(), saved.to_dict()
    for group in FIXED_GROUPS:
        for key, value in now[group].items():
            name = f"{group}.{key}"
            if name not in FREE_ON_RESUME and value != before[group][key]:
                raise ConfigError(
                    f"{source}: {name} is {value!r} now and was {before[group][key]!r}; resume with the same value, "
                    "or start another run.name (model.init_from takes over the weights)"
                )
