"""A trained detector from its checkpoint."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from detector import Detector, build_detector
from detector.backbones.winograd import use_winograd
from engine.run.checkpoint import CheckpointError, load_checkpoint
from engine.run.config import Config, parse_config


@dataclass(frozen=True)
class DetectorInfo:
    """Entries of a checkpoint about its detector.

    Attributes:
        classes: K names in label order.
        category_ids: their K ids in the annotation files; 1..K where the checkpoint does not say.
        thresholds: LRP-optimal score per class in label order (None for a class without one); None if never evaluated.
        config: the experiment.
        epoch, step: completed epochs and optimizer steps.
    """

    classes: list[str]
    category_ids: list[int]
    thresholds: list[float | None] | None
    config: Config
    epoch: int
    step: int


def load_detector(path: str | Path, device: str | torch.device = "cpu") -> tuple[Detector, DetectorInfo]:
    """Detector with the weights that evaluation uses (the EMA where there is one), in eval mode.

    Raises:
        CheckpointError: the file cannot be used.
        ConfigError: the configuration inside is not one of this version.
    """
    state = load_checkpoint(path)
    return detector_from_state(state, str(path), parse_config(state["config"], str(path)), torch.device(device))


def detector_from_state(
    state: dict[str, Any], source: str, config: Config, device: torch.device
) -> tuple[Detector, DetectorInfo]:
    """As `load_detector`, from an open checkpoint and with a configuration that may override its own."""
    detector = build_detector(config, len(state["classes"]), load_weights=False)
    try:
        detector.load_state_dict(state.get("ema") or state["model"])
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{source}: the weights do not fit the model of its configuration: {reason}") from error
    # torch.nn.Module's annotations lack memory_format
    detector = detector.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    use_winograd(detector, training=False, evaluation=config.evaluation.winograd)
    info = DetectorInfo(
        classes=list(state["classes"]),
        category_ids=list(state.get("category_ids") or range(1, len(state["classes"]) + 1)),
        thresholds=state.get("thresholds"),
        config=config,
        epoch=state["epoch"],
        step=state["step"],
    )
    return detector, info
