"""Config to detector: beside the families' builders the only place in this package that sees one."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from detector.config import ModelConfig, loss_settings
from detector.contract import Detector, require_contract
from detector.families import (
    FAMILIES,
    model_settings,
    require_loss_of_family,
    require_start,
    start_keys,
    with_own_defaults,
)
from detector.pyramid import DenseDetector
from detector.weights import fetch_weights, load_detector_weights, load_imagenet_weights

logger = logging.getLogger(__name__)


def build_detector(
    config: Any, num_classes: int, load_weights: bool = True, class_names: Sequence[str] | None = None
) -> Detector:
    """Detector as configured, on the CPU, in training mode.

    Args:
        config: object or mapping with the groups `model` and `loss` (settings as `detector.families` and
            `detector.config` describe them, or mappings that are validated into them; defaults where missing) and
            optionally `data`, of which `crowd` ("background" or "ignore") is read, and `run`, of which `graphs` is.
        num_classes: K ≥ 1.
        load_weights: load what model.weights or model.init_from names. False for a caller that loads a
            checkpoint next.
        class_names: K names of the data's classes; the class head of a checkpoint that model.init_from names is taken
            over if it is of these. None: if it is of as many.
    Raises:
        pydantic.ValidationError: a mapping has an unknown key or an impossible value.
        WeightsError: the weights are not to be had, or do not fit.
        ValueError: num_classes < 1, an unknown data.crowd, a loss that the family cannot learn by, or keys that
            contradict the detector that model.init_from names.
    """
    if num_classes < 1:
        raise ValueError(f"num_classes is {num_classes}, must be at least 1")
    model_group, loss_group = with_own_defaults(_get(config, "model", {}), _get(config, "loss", {}))
    model, loss = model_settings(model_group), loss_settings(loss_group)
    require_loss_of_family(model, loss)
    require_start(model)
    crowd = _get(_get(config, "data", {}), "crowd", "background")
    if crowd not in ("background", "ignore"):
        raise ValueError(f"data.crowd is {crowd!r}, must be background or ignore")
    detector = FAMILIES[model.family].build(model, loss, num_classes, crowd == "ignore")
    require_contract(detector)
    if isinstance(detector, DenseDetector):
        detector.graphs.allowed = _get(_get(config, "run", {}), "graphs", True)
    if load_weights:
        _load_weights(detector, model, class_names)
    return detector


def _load_weights(detector: Detector, model: ModelConfig, class_names: Sequence[str] | None) -> None:
    if start_keys(model) and model.init_from is not None:
        origin, _, name = model.init_from.partition("/")
        remedy = "or start from scratch: python scripts/new_config.py --from-scratch"
        state = fetch_weights(name, "DEFAULT", f"model.init_from {model.init_from!r}", remedy)
        released = FAMILIES[model.family].released[origin](state)
        load_detector_weights(detector, {"model": released.weights}, class_head=False)
    elif model.init_from is not None:
        load_detector_weights(detector, model.init_from, class_names=class_names)
    elif model.weights is not None:
        load_imagenet_weights(detector.backbone, model.backbone, model.weights)
    elif model.norm == "frozen_batch" or model.frozen_stages > 0:
        logger.warning(
            "model.weights is null, so model.norm=%s model.frozen_stages=%d freeze random values; "
            "from scratch use model.norm=group (or batch) model.frozen_stages=0",
            model.norm,
            model.frozen_stages,
        )


def _get(config: Any, name: str, default: Any) -> Any:
    return config.get(name, default) if isinstance(config, Mapping) else getattr(config, name, default)
