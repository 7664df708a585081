"""The folder of one run: what is in it, and who may write it."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import yaml

from data.errors import DatasetError
from data.files import remove_temporaries, write_atomically
from data.text_files import read_lines
from data.yaml_files import read_yaml
from engine.run.checkpoint import CheckpointError, checkpoint_history, load_checkpoint, save_checkpoint
from engine.run.config import Config, ConfigError
from engine.run.event_files import EVENT_FILES, drop_later_points
from engine.run.resume_command import CONFIG_FILE, resume_command
from engine.run.threads import thread_count

log = logging.getLogger(__name__)

BAD_BATCHES = "bad_batch.rank*.pt"  # of steps without a finite loss and gradient


class RunFolder:
    """`<run.dir>/<run.name>/` with config.yaml, metrics.jsonl, training.jsonl, provenance.jsonl, log.txt,
    train_batch.png, TensorBoard events and checkpoints/{last,best}.pt, and with run.diagnose diagnosis.jsonl.

    Beside last.pt are the `run.keep_checkpoints` - 1 before it, last.1.pt the newest.

    Attributes:
        source: the checkpoint that `find_checkpoint` gave; None before, and for a fresh start.
        rewound: whether that is a checkpoint of this run which was asked for in place of the newest.
    """

    def __init__(self, config: Config) -> None:
        self.path = Path(config.run.dir) / str(config.run.name)
        self.last = self.path / "checkpoints" / "last.pt"
        self.best = self.path / "checkpoints" / "best.pt"
        self.batch_picture = self.path / "train_batch.png"
        self.diagnosis = self.path / "diagnosis.jsonl"
        self.curves = self.path / "training.jsonl"
        self.provenance = self.path / "provenance.jsonl"
        self.log = self.path / "log.txt"
        self._metrics = self.path / "metrics.jsonl"
        self._to_be_replaced = self.path / ".to_be_replaced"
        self._keep = config.run.keep_checkpoints
        self._damaged: list[Path] = []
        self._config_file = self.path / CONFIG_FILE
        self.source: Path | None = None
        self.rewound = False
        self._set_aside: Path | None = None  # where results go that have no checkpoint
        self._saved_step: int | None = None  # of last.pt, as far as this process read or wrote it
        self._given_up: list[Path] = []  # checkpoints of this run that are later than the one it is rewound to
        self._is_fork = False  # whether `source` is a checkpoint of another run

    def find_checkpoint(
        self, resume: str | None, overwrite: bool, restarted: bool = False, writes: bool = True
    ) -> dict[str, Any] | None:
        """The checkpoint that this run continues from, None for a fresh start.

        Args:
            resume: "auto" or this folder (the newest of last.pt, those before it and best.pt that can be read, else
                afresh), a checkpoint file, or None.
            overwrite: whether an existing run may be replaced.
            restarted: whether torchrun starts these processes again after a failure: they go on with what they have
                written so far, if anything, and only else do what the two options say.
            writes: whether this process is the one that writes the folder, and holds its lock.
        Raises:
            ConfigError: the run exists and neither `--resume` nor `--overwrite` is given; `resume` is the checkpoint
                of another one; or files in the way are no run's. A run that died before its first checkpoint is in
                nobody's way.
            CheckpointError: the checkpoint cannot be used, or with "auto" none of those that exist.
        """
        if restarted and not self._to_be_replaced.exists():
            newest = self._newest_checkpoint()
            if newest is not None or resume is None:
                return newest
        self._refuse_foreign_files()
        if resume == "auto" or (resume is not None and Path(resume).resolve() == self.path.resolve()):
            newest = self._newest_checkpoint()
            if newest is None and self.metrics():
                self._set_aside = _free_folder(self.path)
            return newest
        if resume is not None:
            own = Path(resume).resolve().parent == self.last.parent.resolve()
            if self._holds_results() and not own:
                raise ConfigError(
                    f"--resume {resume}: {self.path} holds another run, which would be replaced; choose another "
                    "run.name, or continue that run with --resume auto"
                )
            self.source, self._is_fork, state = Path(resume), not own, load_checkpoint(resume)
            is_last = self.source.resolve() == self.last.resolve()
            self.rewound, self._saved_step = own and not is_last, state["step"] if is_last else None
            if self.rewound:
                others = [*checkpoint_history(self.last), self.best]
                self._given_up = [path for path in others if _is_later(path, state["step"])]
                if writes:  # as below: if torchrun restarts before that, the newest must not be continued
                    self._to_be_replaced.touch()
            return state
        if self._files():
            if self._holds_results() and not overwrite:
                raise ConfigError(
                    f"{self.path}: this run exists; continue it with --resume auto or as it was begun "
                    f"({resume_command(self.path)}), replace it with --overwrite, or choose another run.name"
                )
            if not overwrite:
                log.info("%s: a run ended here before its first checkpoint; this one starts in its place", self.path)
            if writes:  # another process may be one that a live run's lock is about to refuse
                self._to_be_replaced.touch()  # until `begin`: if torchrun restarts, the old run must not be continued
        return None

    def _newest_checkpoint(self) -> dict[str, Any] | None:
        problems = []
        for path in (*checkpoint_history(self.last), self.best):
            if not path.exists():
                continue
            try:
                state = load_checkpoint(path)
            except CheckpointError as error:
                problems.append(error)
                self._damaged.append(path)
                continue
            self.source, self._saved_step = path, state["step"] if path == self.last else None
            for problem in problems:
                log.warning("%s", problem)
            if problems:
                log.warning("going on from the one before it, %s (step %d)", path, state["step"])
            return state
        if problems:
            raise CheckpointError(f"{problems[0]}; no other checkpoint here can be used; --overwrite starts afresh")
        return None

    def _refuse_foreign_files(self) -> None:
        """Raises ConfigError where files have names of a run's and no run wrote them: it would replace them."""
        files = self._files()
        if files and not (_is_resolved(self._config_file) or self._holds_results()):
            names = ", ".join(sorted(path.name for path in files)[:3])
            raise ConfigError(
                f"{self.path}: holds {names}, which train.py did not write and would replace; choose another run.dir "
                "or run.name, or move them away"
            )

    def _holds_results(self) -> bool:
        """Whether there is something to continue or to keep; not after a run that died before its first checkpoint."""
        checkpoints = [*checkpoint_history(self.last), *self.last.parent.glob("*.pt.damaged"), self.best]
        if any(map(Path.exists, checkpoints)) or self.metrics():
            return True
        return self._metrics.exists() and not self._config_file.exists()  # what is left of a run

    def begin(self, config: Config, step: int, evaluated_step: int) -> None:
        """Makes the folder ready for a run that continues after `step` steps, the newest evaluation being that of
        `evaluated_step`; what an interrupted run wrote later is dropped. Step 0 removes what an earlier run left, or
        sets it aside where nobody asked for that."""
        if self._set_aside is not None:
            text = "%s: has results, but no checkpoint to continue from; starts afresh, and keeps them in %s"
            log.warning(text, self.path, self._set_aside)
            self._set_aside.mkdir()
        if step == 0 or self._is_fork:  # then the files are those of a run that died before its first checkpoint
            for path in self._files():
                if self._set_aside is not None:
                    path.rename(self._set_aside / path.name)
                elif path != self._config_file:  # which is replaced: a folder without it is taken to be no run's
                    path.unlink()
        self._to_be_replaced.unlink(missing_ok=True)
        for path in self._damaged:  # out of the way, or the next checkpoint would push out the good one
            if path.exists():
                path.rename(path.with_name(path.name + ".damaged"))
        for folder in (self.path, self.last.parent):
            remove_temporaries(folder)
        write_atomically(self._config_file, lambda file: file.write(_as_yaml(config)))
        drop_later_points(self.path, step, evaluated_step)
        kept = [record for record in self.metrics() if record["step"] <= evaluated_step]
        self._write_metrics(kept)

    @property
    def has_best(self) -> bool:
        """Whether there is a best.pt that goes on to count."""
        return self.best.exists() and self.best not in self._given_up

    def rewind(self, state: dict[str, Any]) -> None:
        """Puts the checkpoint that was asked for in the place of the newest, and those after it into a folder of their
        own: given again, the same command must not find one of them under the name that it asks for. Beside them are
        copies of the lines about metrics and steps, of which `begin` drops what came later."""
        if self._given_up:
            aside = _free_folder(self.path)
            aside.mkdir()
            for path in (self._metrics, self.curves, self.diagnosis):
                if path.exists():
                    shutil.copyfile(path, aside / path.name)
            for path in self._given_up:
                path.rename(aside / path.name)
            log.info(
                "%s: goes back to step %d; what came after it is in %s, and a run of another run.name can go on from "
                "there (--resume)",
                self.path,
                state["step"],
                aside,
            )
        save_checkpoint(self.last, state)
        self._saved_step = state["step"]

    def save_last(self, state: dict[str, Any]) -> None:
        # The weights of a step are saved before their evaluation and after it: one of the checkpoints that are kept.
        keep = 1 if state["step"] == self._saved_step else self._keep
        save_checkpoint(self.last, state, keep)
        self._saved_step = state["step"]
        for path in checkpoint_history(self.last)[self._keep :]:  # of an earlier start that kept more
            path.unlink()

    def save_best(self, state: dict[str, Any]) -> None:
        save_checkpoint(self.best, state)

    def metrics(self) -> list[dict[str, Any]]:
        """The evaluations so far, oldest first."""
        if not self._metrics.exists():
            return []
        try:
            records = [json.loads(line) for line in read_lines(self._metrics)]
            valid = all(isinstance(record["step"], int) for record in records)
        except (ValueError, TypeError, KeyError):
            valid = False
        if not valid:
            raise ConfigError(f"{self._metrics}: not one JSON object with a step per line; mend or remove the file")
        return records

    def add_metrics(self, record: dict[str, Any]) -> None:
        self._write_metrics([*self.metrics(), record])

    def _write_metrics(self, records: list[dict[str, Any]]) -> None:
        text = "".join(json.dumps(record) + "\n" for record in records)
        write_atomically(self._metrics, lambda file: file.write(text.encode()))

    def _files(self) -> list[Path]:
        """Files that an earlier run wrote here; files of other origin are never touched."""
        own = [self._config_file, self._metrics, self.batch_picture, self.best, *checkpoint_history(self.last)]
        own += [self.diagnosis, self.curves, self.provenance, self.log]
        others = [*self.last.parent.glob("*.pt.damaged"), *self.path.glob(BAD_BATCHES), *self.path.glob(EVENT_FILES)]
        return [path for path in (*own, *sorted(others)) if path.exists()]


def _is_later(path: Path, step: int) -> bool:
    try:
        return path.exists() and load_checkpoint(path)["step"] > step
    except CheckpointError:  # of no use, and in nobody's way
        return False


def _as_yaml(config: Config) -> bytes:
    """The configuration with the number of threads that null stands for, so that it repeats the run elsewhere."""
    values = config.to_dict()
    values["run"]["threads"] = thread_count(config.run)
    return yaml.safe_dump(values, sort_keys=False).encode()


def _free_folder(run: Path) -> Path:
    number = 1
    while (run / f"earlier.{number}").exists():
        number += 1
    return run / f"earlier.{number}"


def _is_resolved(config_file: Path) -> bool:
    """Whether a run wrote the file, which then has all groups; what a user writes leaves some to their defaults."""
    try:
        values = read_yaml(config_file) if config_file.exists() else None
    except DatasetError:
        return False
    return isinstance(values, dict) and values.keys() >= Config.model_fields.keys()
