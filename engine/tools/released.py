"""Released checkpoints of other repositories as checkpoints of this one.

Each becomes the model of a shipped config, which goes into the checkpoint: every tensor of theirs is used and every
one of ours is filled, or the conversion fails.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from detector import build_detector
from detector.families import FAMILIES
from detector.released import COCO_CLASSES, OtherFamilyError, Released, ReleasedError
from detector.state_file import StateFileError, read_state_file
from detector.weights import is_of_training
from engine.run.checkpoint import CheckpointError
from engine.run.config import load_config

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def read_released(path: str | Path, weights_key: str = "state_dict") -> Mapping[str, Any]:
    """The content of a checkpoint file, unpickled without running any code that it names.

    Args:
        weights_key: where such a file keeps its tensors, for the message that says how to take them out.
    Raises:
        CheckpointError: missing, damaged, or holding objects that torch refuses to unpickle.
    """
    path = Path(path)
    try:
        content = read_state_file(path)
    except StateFileError as error:
        if error.kind == "unsafe":
            raise CheckpointError(
                f"{path}: {error}, which torch refuses to unpickle because that can run code; "
                'if you trust the file, keep its tensors only: python -c "import torch; torch.save({'
                f"'{weights_key}': "
                f"torch.load('{path}', map_location='cpu', weights_only=False)['{weights_key}']}}, 'tensors.pth')\", "
                "and convert tensors.pth"
            ) from error
        remedy = "check the path" if error.kind == "unreadable" else "download it again"
        raise CheckpointError(f"{path}: {error}; {remedy}") from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}; expected a checkpoint or a state dict")
    return content


def convert(origin: str, content: Mapping[str, Any], source: str) -> dict[str, Any]:
    """A checkpoint of ours from a released one.

    Args:
        origin: who released it, a key of `Family.released`.
        content: their checkpoint, or its state dict alone.
        source: names it in messages.
    Raises:
        CheckpointError: a tensor is missing, left over or of another shape, or no shipped config has this network.
    """
    tensors = content.get("state_dict", content.get("model", content))
    problems: list[ReleasedError] = []
    for family in FAMILIES.values():
        if origin in family.released:
            try:
                released = family.released[origin](tensors)
            except ReleasedError as error:
                problems.append(error)
            else:
                return _checkpoint(released, source, content)
    closest = min(problems, key=lambda problem: isinstance(problem, OtherFamilyError))
    raise CheckpointError(f"{source}: {closest}")


def _checkpoint(released: Released, source: str, content: Mapping[str, Any]) -> dict[str, Any]:
    config = load_config(CONFIGS / f"{released.config}.yaml")
    meta = content["meta"] if isinstance(content.get("meta"), Mapping) else content
    classes = _class_names(meta.get("CLASSES"), released.num_classes, source)
    own = build_detector(config, len(classes), load_weights=False).state_dict()
    # their files lack the state of our training, which starts afresh
    weights = {name: value for name, value in own.items() if is_of_training(name)} | released.weights
    _require_fit(own, weights, f"{source}: does not fit {config.run.name}.yaml")
    epoch, step = (meta.get(key) for key in ("epoch", "iter"))
    return {
        "model": {name: weights[name].to(value.dtype).contiguous() for name, value in own.items()},
        "config": config.to_dict(),
        "epoch": epoch if isinstance(epoch, int) else 0,
        "step": step if isinstance(step, int) else 0,
        "classes": classes,
        "thresholds": None,
    }


def _require_fit(own: Mapping[str, Tensor], given: Mapping[str, Tensor], problem: str) -> None:
    """Raises CheckpointError unless there are exactly the tensors of ours, in their shapes."""
    faults = [f"{name} is missing" for name in own if name not in given]
    faults += [f"{name} is left over" for name in given if name not in own]
    faults += [
        f"{name} has shape {tuple(given[name].shape)}, expected {tuple(value.shape)}"
        for name, value in own.items()
        if name in given and given[name].shape != value.shape
    ]
    if faults:
        more = f" and {len(faults) - 1} more" if len(faults) > 1 else ""
        raise CheckpointError(f"{problem}: {faults[0]}{more}; download it again")


def _class_names(names: object, num_classes: int, source: str) -> list[str]:
    if isinstance(names, list | tuple) and len(names) == num_classes and all(isinstance(n, str) for n in names):
        return list(names)
    if num_classes == len(COCO_CLASSES):
        return COCO_CLASSES
    raise CheckpointError(f"{source}: {num_classes} classes and no names of them; expected COCO's 80, or meta.CLASSES")
