"""Weights from elsewhere: ImageNet backbones and detectors to fine-tune."""

import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import get_model_weights

from detector.contract import OBJECTIVE, Detector
from detector.state_file import StateFileError, read_state_file

logger = logging.getLogger(__name__)

MOST_SHOWN = 10  # names of classes


class WeightsError(ValueError):
    """Weights that cannot be found, read or used; one line for the user, with the remedy."""

    exit_status = 2


def load_imagenet_weights(backbone: nn.Module, name: str, weights: str) -> None:
    """Fill a backbone with ImageNet weights; the classifier (fc) is left out.

    BatchNorm's affine parameters belong to its statistics: of its weights a backbone with GroupNorm gets the
    convolutions only, and one line in the log says so.

    Args:
        name: "resnet18", ..., "resnext101_64x4d".
        weights: a local file (a torchvision state dict), or a name of torchvision's weights API, such as
            "DEFAULT" or "IMAGENET1K_V1", which is downloaded once.
    Raises:
        WeightsError: unknown name, no connection, unreadable file, or another network's weights.
    """
    if Path(weights).is_file():
        state = _read(weights, "model.weights")
    else:
        remedy = (
            "give a local file, or train from scratch with model.weights=null model.norm=group model.frozen_stages=0"
        )
        state = fetch_weights(name, weights, f"model.weights {weights!r}", remedy)
    state = {key: value for key, value in state.items() if not key.startswith("fc.")}
    own = backbone.state_dict()
    # ImageNet models count no batches in old files, and have no deformable convolutions
    optional = {key for key in own if key.endswith("num_batches_tracked") or ".conv_offset." in key}
    norms = tuple(f"{key}." for key, m in backbone.named_modules() if isinstance(m, nn.GroupNorm))
    if norms and "bn1.running_mean" in state:
        state = {key: value for key, value in state.items() if not key.startswith(norms)}
        optional.update(key for key in own if key.startswith(norms))
        logger.warning("model.weights: convolutions only; BatchNorm's values do not fit model.norm=group")
    _check(state, own, optional, f"model.weights {weights!r} does not fit {name}")
    backbone.load_state_dict(state, strict=False)


def load_detector_weights(
    detector: Detector,
    source: Mapping[str, Any] | str | Path,
    class_head: bool = True,
    class_names: Sequence[str] | None = None,
) -> list[str]:
    """Start a detector from another one's weights, for fine-tuning.

    Loads everything but a class head of other classes and the state of training, such as self-balancing.

    Args:
        source: a checkpoint, or the path of one. Its "ema" weights are preferred to "model".
        class_head: whether to load the class head if it fits.
        class_names: of the detector, in order. A class head of other names, or of these in another order, does not fit;
            None, or a checkpoint without names: one of the same size does.
    Returns:
        Names of the detector's parameters that were left as they are; logged too.
    Raises:
        WeightsError: unreadable, no checkpoint, or the weights of another network.
    """
    checkpoint = source if isinstance(source, Mapping) else _read(source, "model.init_from")
    where = "the checkpoint" if isinstance(source, Mapping) else f"model.init_from {str(source)!r}"
    state = checkpoint.get("ema") or checkpoint.get("model")
    if not isinstance(state, Mapping):
        raise WeightsError(f"{where} holds no 'model' weights; give a checkpoint written by train.py")
    own = detector.state_dict()
    of_training = {key for key in own if is_of_training(key)}
    state = {key: value for key, value in upgraded_names(state).items() if not is_of_training(key)}
    names = list(checkpoint.get("classes") or ())
    wanted = list(class_names) if class_names and names else names
    skipped = [
        key
        for key in detector.class_head
        if wanted != names or not class_head or _shape(state.get(key)) not in (None, own[key].shape)
    ]
    state = {key: value for key, value in state.items() if key not in skipped}
    _check(state, own, of_training.union(skipped), f"{where} is of another network")
    detector.load_state_dict(state, strict=False)
    if skipped and wanted != names:
        what = f"of {_listed(names)}, and not of {_listed(wanted)}"
        logger.warning("model.init_from: class head %s: it starts afresh", what)
    elif skipped:
        which = "class head of another size" if class_head else "class head of other classes"
        logger.warning("model.init_from: %s, starts afresh (%s)", which, ", ".join(skipped))
    elif names:
        logger.info("model.init_from: with its class head, of %s", _listed(names))
    return skipped


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:MOST_SHOWN]) + (", …" if len(names) > MOST_SHOWN else "")


def upgraded_names(state: Mapping[str, Any]) -> dict[str, Any]:
    """A state dict of any revision with today's names. Up to format 1 the objective was called criterion."""
    old = "criterion.self_balance."
    return {
        f"objective.loss.balance.{key.removeprefix(old)}" if key.startswith(old) else key: state[key] for key in state
    }


def is_of_training(key: str) -> bool:
    """Whether an entry of a detector's state dict belongs to its training, not to its network."""
    return OBJECTIVE in key.split(".")


def fetch_weights(name: str, weights: str, asked: str, remedy: str) -> dict[str, Tensor]:
    """Released weights by torchvision's weights API, which keeps a file that it has fetched once.

    Args:
        name: of torchvision's model. weights: one of its weights, such as "DEFAULT".
        asked: key and value that ask for them; remedy: what to do without them; for errors.
    Raises:
        WeightsError: no weights of this name; not to be had: with the URL, and the folder to put the file into.
    """
    try:
        choices = get_model_weights(name).__members__
    except ValueError:
        raise WeightsError(f"{asked}: nobody has released weights of {name} by torchvision; {remedy}") from None
    if weights not in choices:
        names = ", ".join(choices)
        raise WeightsError(f"{asked} is neither a file nor weights of {name} ({names})")
    url = choices[weights].url
    try:
        return choices[weights].get_state_dict(progress=sys.stderr.isatty(), check_hash=True)
    except Exception as error:  # network, disk, or a damaged file in the cache: nearly any type
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        folder = Path(torch.hub.get_dir(), "checkpoints")
        raise WeightsError(f"{asked} could not be fetched ({reason}): put {url} into {folder}, {remedy}") from error


def _read(path: str | Path, key: str) -> Mapping[str, Any]:
    try:
        content = read_state_file(path)
    except StateFileError as error:
        remedy = "name an existing file" if error.kind == "unreadable" else "give a state dict that torch.save wrote"
        raise WeightsError(f"{key}: {str(path)!r}: {error}; {remedy}") from error
    if not isinstance(content, Mapping):
        raise WeightsError(f"{key}: {str(path)!r} holds no state dict; give a file that torch.save wrote of one")
    return content


def _check(state: Mapping[str, Any], own: Mapping[str, Tensor], optional: set[str], problem: str) -> None:
    """Raise unless state has exactly own's names and shapes, but for the optional ones."""
    faults = [f"{key} is missing" for key in own if key not in state and key not in optional]
    faults += [f"{key} is not part of it" for key in state if key not in own]
    for key, value in state.items():
        if key in own and _shape(value) != own[key].shape:
            faults.append(f"{key} must have shape {tuple(own[key].shape)}")
    if faults:
        more = f" and {len(faults) - 1} more" if len(faults) > 1 else ""
        raise WeightsError(f"{problem}: {faults[0]}{more}; check model.backbone and the other model keys")


def _shape(value: object) -> torch.Size | None:
    return value.shape if isinstance(value, Tensor) else None
