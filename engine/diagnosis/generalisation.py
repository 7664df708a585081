"""What AP on training images beside AP on validation images says of a detector.

How the limits were measured is in docs/diagnose.md.
"""

from collections.abc import Mapping
from typing import Any

from engine.diagnosis.checks import Finding
from engine.run.config import Config

# AP on val is at most so much of AP on training images, and at least so far below it.
OVERFIT_SHARE, OVERFIT_GAP = 0.7, 0.1
LOW_AP = 0.2  # on training images, of a detector that has not learnt even these
FEW_IMAGES = 500  # to train on; with more, other remedies come first


def check_generalisation(
    val_ap: float, train_ap: float | None, images: int, config: Config, finished: bool
) -> Finding | None:
    """Tells overfitting, too few images and too little training apart.

    Args:
        val_ap, train_ap: of the same weights on validation and on training images; -1 without an object, train_ap
            None where training images were not evaluated (evaluation.train_images=0).
        images: training images.
        finished: whether the training has ended; before that, low on both is how every run begins.
    """
    if train_ap is None or min(val_ap, train_ap) < 0:
        return None
    seen = f"AP is {train_ap:.3f} on training images and {val_ap:.3f} on validation images"
    if val_ap < OVERFIT_SHARE * train_ap and train_ap - val_ap > OVERFIT_GAP:
        if images < FEW_IMAGES:
            return Finding(
                "too_few_images",
                f"{seen}: the detector has learnt its {images} training images by heart, too few of them"
                f"{_without_pretraining(config)}; label more, or {_better_start(config)}",
            )
        return Finding(
            "overfitting",
            f"{seen}: the detector has learnt its {images} training images by heart (overfitting); make sure that both "
            f"splits show the same kind of images, {_variety(config)}train for fewer epochs (schedule.epochs, now "
            f"{config.schedule.epochs}), or {_better_start(config)}",
        )
    if finished and train_ap < LOW_AP:
        return Finding(
            "undertrained",
            f"{seen}, low on both: not trained enough; raise {_length(config)}"
            + (
                ""
                if config.run.diagnose
                else ", or if the loss has long stopped falling, let run.diagnose=true find out why"
            ),
        )
    return None


def verdict_of(state: Mapping[str, Any], config: Config) -> str:
    """What the newest evaluation of a checkpoint's training says, in one line; "" where it does not know.

    Args:
        state: the checkpoint; config: its configuration.
    """
    found, images = state.get("evaluated_ap", {}), state.get("training_set", {}).get("images")
    if "train_AP" not in found or images is None or min(found.values()) < 0:
        return ""
    finding = check_generalisation(found["AP"], found["train_AP"], images, config, finished=True)
    if finding is not None:
        return f"{finding.cause.replace('_', ' ').capitalize()}: {finding.message}."
    return (
        f"In training AP was {found['train_AP']:.3f} on training images and {found['AP']:.3f} on validation images: no "
        "overfitting to speak of."
    )


def _from_scratch(config: Config) -> bool:
    return config.model.weights is None and config.model.init_from is None


def _without_pretraining(config: Config) -> str:
    return " for a detector that starts from scratch" if _from_scratch(config) else ""


def _better_start(config: Config) -> str:
    if config.model.init_from is not None:
        return "start from a detector that knows similar objects (model.init_from)"
    weights = " or from ImageNet weights (model.weights)" if _from_scratch(config) else ""
    return f"start from a trained detector (model.init_from){weights}"


def _variety(config: Config) -> str:
    # with "crop" the images are not resized, and "ssd" would change the size of objects
    return "" if config.data.augmentation in ("ssd", "crop") else "vary the images more (data.augmentation=ssd), "


def _length(config: Config) -> str:
    """The key that the run ended by, and its value."""
    if config.schedule.max_steps is not None:
        return f"schedule.max_steps (now {config.schedule.max_steps})"
    return f"schedule.epochs (now {config.schedule.epochs})"
