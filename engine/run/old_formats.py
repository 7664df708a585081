"""Checkpoints of earlier revisions, read as if today's had written them.

Format 1, up to revision efdaf8b: the group `loss` held the keys of all losses, whichever was chosen, and the detector's
objective was called `criterion`.
"""

from typing import Any

from detector.weights import upgraded_names
from losses.table import LOSSES


def upgrade(state: dict[str, Any]) -> dict[str, Any]:
    """The content of a checkpoint in today's format; the tensors are the same."""
    state = state | {"config": _with_exif(state["config"])}
    if state.get("format", 1) >= 2:
        return state
    weights = {name: upgraded_names(state[name]) for name in ("model", "ema") if name in state}
    return state | weights | {"config": _without_inert_keys(state["config"])}


def upgraded_config(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration in a run folder, config.yaml, in today's format."""
    model = config.get("model")
    is_format_1 = isinstance(model, dict) and "family" not in model
    return _without_inert_keys(_with_exif(config)) if is_format_1 else _with_exif(config)


def former_defaults(config: dict[str, Any]) -> dict[str, Any]:
    """Values of a run that were defaults when it began and are no longer: it goes on with them, unless its experiment
    names others.

    Args:
        config: of its checkpoint, as `upgrade` leaves it.
    Returns:
        nested values, empty for most runs.
    """
    kept: dict[str, Any] = {}
    if config.get("data", {}).get("exif") == "legacy":
        kept["data"] = {"exif": "legacy"}
    loss = config.get("loss", {})
    if (loss.get("name"), loss.get("delta")) == ("rs", 1.0):  # up to format 1 all ranking losses had aLRP's
        kept["loss"] = {"name": "rs", "delta": 1.0}
    return kept


def _with_exif(config: dict[str, Any]) -> dict[str, Any]:
    """Names the rule of runs that are older than `data.exif`: EXIF orientations were followed in prediction, but in
    data sets only where the size that was annotated fitted nothing else."""
    data = config.get("data")
    if not isinstance(data, dict) or "exif" in data:
        return config
    return config | {"data": data | {"exif": "legacy"}}


def _without_inert_keys(config: dict[str, Any]) -> dict[str, Any]:
    """Drops the keys that the chosen loss has never read. Its own keep their values: a run of Rank & Sort Loss goes on
    with the delta that it began with, whatever the default is now."""
    loss = config.get("loss")
    if not isinstance(loss, dict) or loss.get("name") not in LOSSES:
        return config
    keys = LOSSES[loss["name"]].Settings.key_names()
    return config | {"loss": {key: value for key, value in loss.items() if key in keys}}
