"""Checkpoints: dicts of tensors and plain values that `torch.load(weights_only=True)` opens, written atomically.

The checksums are those of the zip archive that torch.save writes: a CRC-32 per tensor, which torch.load does not look
at and `load_checkpoint` does. Inside the file they cannot be separated from it, as a side-car could.
"""

import errno
import os
import zipfile
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, TypeGuard

import torch
from torch import Tensor

from data.files import write_atomically
from detector.state_file import StateFileError, read_state_file
from engine.run.old_formats import upgrade

FORMAT = 2  # raised when a version of this project could misread the files of another


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message is one line for the user."""

    exit_status = 2


def save_checkpoint(path: Path, state: dict[str, Any], keep: int = 1) -> None:
    """Writes `state` (tensors, numbers, strings, lists, dicts); errors as of `write_atomically`.

    Args:
        keep: how many files of this name to keep; those before it remain as last.1.pt (the newest), last.2.pt, …
    """

    def keep_old() -> None:
        if keep > 1 and path.exists():
            _keep_old(path, keep)

    def write(file: IO[bytes]) -> None:
        try:
            torch.save({"format": FORMAT, **state}, file)
        except RuntimeError as error:  # how PyTorch's writer ends after the file refused its bytes
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None

    write_atomically(path, write, keep_old)


def checkpoint_history(path: Path) -> list[Path]:
    """`path` and the earlier checkpoints that `save_checkpoint` kept of it, newest first; those that exist."""
    numbered = {}
    for file in path.parent.glob(f"{path.stem}.*{path.suffix}"):
        number = file.name[len(path.stem) + 1 : -len(path.suffix)]
        if number.isdecimal():
            numbered[int(number)] = file
    return [file for file in (path, *(numbered[number] for number in sorted(numbered))) if file.exists()]


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Reads a checkpoint of this project onto the CPU and verifies its checksums.

    Returns:
        dict with at least `model`, `config`, `epoch`, `step` and `classes`.
    Raises:
        CheckpointError: missing, empty, truncated, damaged, unsafe to unpickle, or not written by this project.
    """
    path = Path(path)
    if path.is_dir():
        raise CheckpointError(f"{path}: a folder, not a checkpoint file; name a file such as checkpoints/best.pt in it")
    try:
        _verify_checksums(path)
        state = read_state_file(path)
    except FileNotFoundError:
        raise CheckpointError(
            f"{path}: no such checkpoint; training writes runs/<name>/checkpoints/last.pt and best.pt"
        ) from None
    except OSError as error:
        raise CheckpointError(f"{path}: the checkpoint cannot be read ({error.strerror or error})") from error
    except (CheckpointError, MemoryError):
        raise
    except Exception as error:  # zipfile raises nearly anything on damaged files
        if isinstance(error, StateFileError) and error.kind in ("unsafe", "foreign"):
            raise CheckpointError(
                f"{path}: not a checkpoint of this project, or holds more than tensors and plain values; "
                "use a file written by train.py"
            ) from error
        raise CheckpointError(
            f"{path}: the checkpoint is truncated, damaged or no checkpoint at all; copy it again or use another one"
        ) from error
    _check_content(state, path)
    return upgrade(state)


def _verify_checksums(path: Path) -> None:
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path}: the checkpoint file is empty; copy it again or use another one")
    with open(path, "rb") as file:
        if file.read(2) != b"PK":
            raise CheckpointError(f"{path}: not a checkpoint of this project; use a file written by train.py")
        damaged = zipfile.ZipFile(file).testzip()
    if damaged is not None:
        raise CheckpointError(
            f"{path}: the checkpoint is damaged ({damaged} does not match its checksum); copy it again or use another"
        )


def _check_content(state: object, path: Path) -> None:
    """Raises CheckpointError unless the entries are there and of the types that their readers rely on."""
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: not a checkpoint of this project (no dict); use a file written by train.py")
    valid: dict[str, tuple[bool, Callable[[Any], bool]]] = {  # name: (whether it must be there, what it must be)
        "model": (True, _is_state_dict),
        "ema": (False, _is_state_dict),
        "config": (True, lambda value: isinstance(value, dict)),
        "epoch": (True, _is_count),
        "step": (True, _is_count),
        "classes": (True, _is_list_of_names),
        "category_ids": (False, lambda value: _is_list_of_ids(value, len(state["classes"]))),
        "optimizer": (False, lambda value: isinstance(value, dict)),
        "skipped": (False, _is_count),
        "skipped_in_a_row": (False, _is_count),
        "world_size": (False, lambda value: _is_count(value) and value > 0),
        "thresholds": (False, lambda value: value is None or _is_list_of_scores(value, len(state["classes"]))),
        "evaluated_step": (False, _is_count),
        "threads": (False, lambda value: _is_count(value) and value > 0),
        "training_set": (False, _is_training_set),
        "precision": (False, lambda value: value in ("float32", "bfloat16")),
        "best_ap": (False, lambda value: value is None or _is_ap(value)),
        "evaluated_ap": (False, lambda value: isinstance(value, dict) and all(map(_is_ap, value.values()))),
        "provenance": (False, lambda value: isinstance(value, dict) and all(map(_is_text, value.values()))),
    }
    if missing := [name for name, (needed, _) in valid.items() if needed and name not in state]:
        raise CheckpointError(
            f"{path}: not a checkpoint of this project (no {', '.join(missing)}); use a file written by train.py"
        )
    version = state.get("format", 1)  # the first files did not say so
    if version not in range(1, FORMAT + 1):
        raise CheckpointError(
            f"{path}: written in checkpoint format {version!r} by another version of this project; "
            f"this version reads formats up to {FORMAT}"
        )
    for name, (_, is_valid) in valid.items():
        if name in state and not is_valid(state[name]):
            raise CheckpointError(f"{path}: {name!r} in the checkpoint is malformed; use a file written by train.py")


def _is_count(value: object) -> bool:
    return _is_integer(value) and value >= 0


def _is_training_set(value: object) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == {"images", "digest"}
        and _is_count(value["images"])
        and isinstance(value["digest"], str)
    )


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_ap(value: object) -> bool:
    return isinstance(value, float) and -1 <= value <= 1


def _is_state_dict(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in value.items()
    )


def _is_list_of_scores(value: object, count: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) == count
        and all(score is None or (isinstance(score, float) and 0 <= score <= 1) for score in value)
    )


def _is_list_of_names(value: object) -> bool:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        return False
    return 0 < len(value) == len(set(value))


def _is_list_of_ids(value: object, count: int) -> bool:
    return (
        isinstance(value, list) and len(value) == count == len(set(map(repr, value))) and all(map(_is_integer, value))
    )


def _is_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def _keep_old(path: Path, keep: int) -> None:
    """Renames last.1.pt to last.2.pt and so on, drops what exceeds `keep`, and lets last.1.pt be last.pt as well.

    A process killed in here leaves last.pt in place; on a disk without hard links it may be last.1.pt alone.
    """
    first, *older = (path.with_name(f"{path.stem}.{number}{path.suffix}") for number in range(1, keep))
    if first.exists() and first.samefile(path):  # killed after the link
        return
    for file in checkpoint_history(path)[keep:]:
        file.unlink()
    names = [first, *older]
    for newer, file in reversed([*pairwise(names)]):
        if newer.exists():
            os.replace(newer, file)
    try:
        first.unlink(missing_ok=True)
        os.link(path, first)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EMLINK):
            raise
        os.replace(path, first)
