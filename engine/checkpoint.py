"""Checkpoints: dicts of tensors and plain values that `torch.load(weights_only=True)` opens, written atomically."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message is one line for the user."""


def write_atomically(path: Path, write: Callable[[IO[bytes]], None]) -> None:
    """Calls `write` on a temporary file beside `path`, flushes it to disk and renames it, so no reader sees a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        error.filename, error.filename2 = str(path), None  # not the temporary name, which says nothing to the user
        raise
    finally:
        temporary.unlink(missing_ok=True)


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Writes `state` (tensors, numbers, strings, lists, dicts) atomically."""
    write_atomically(path, lambda file: torch.save(state, file))


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Reads a checkpoint of this project onto the CPU.

    Returns:
        dict with at least `model`, `config`, `epoch`, `step` and `classes`.
    Raises:
        CheckpointError: missing, empty, truncated, unsafe to unpickle, or not written by this project.
    """
    path = Path(path)
    if path.is_dir():
        raise CheckpointError(f"{path}: a folder, not a checkpoint file; name a file such as checkpoints/best.pt in it")
    if not path.exists():
        raise CheckpointError(
            f"{path}: no such checkpoint; training writes runs/<name>/checkpoints/last.pt and best.pt"
        )
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path}: the checkpoint file is empty; copy it again or use another one")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: not a checkpoint of this project, or holds more than tensors and plain values; "
            "use a file written by train.py"
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # the unpickler raises nearly anything on damaged files
        raise CheckpointError(
            f"{path}: the checkpoint is truncated, damaged or no checkpoint at all; copy it again or use another one"
        ) from error
    needed = ("model", "config", "epoch", "step", "classes")
    missing = [key for key in needed if not isinstance(state, dict) or key not in state]
    if missing:
        raise CheckpointError(
            f"{path}: not a checkpoint of this project (no {', '.join(missing)}); use a file written by train.py"
        )
    return state
