"""Outputs of an exported RetinaNet, and detections from them without the network."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from detector.boxes import BoxCoding
from detector.postprocess import PostProcessor
from detector.references import References


def output_names(references: References) -> tuple[str, ...]:
    """Names of the outputs: cls_logits (B, A, K), box_deltas (B, A, 4), and the anchors of each level, (n, 4)."""
    return "cls_logits", "box_deltas", *(f"anchors_{name.lower()}" for name in references.level_names)


def settings_of(postprocess: PostProcessor) -> dict[str, Any]:
    """Arguments of the post-processor as plain values, fit for JSON."""
    settings = dict(vars(postprocess))
    coding = settings["coding"]._asdict()
    if math.isinf(coding["min_log_ratio"]):
        coding["min_log_ratio"] = None  # JSON has no infinity
    return settings | {"coding": coding}


def detections_from_outputs(
    outputs: Sequence[Any], settings: Mapping[str, Any], image_sizes: Sequence[tuple[int, int]]
) -> list[dict[str, torch.Tensor]]:
    """Makes the detections that the detector itself would give.

    Args:
        outputs: tensors or NumPy arrays in the order of `output_names`.
        settings: from `settings_of`, also after a way through JSON.
        image_sizes: (height, width) of each image without its padding, to which boxes are clipped.
    """
    cls_logits, box_deltas, *anchors_per_level = (torch.as_tensor(output) for output in outputs)
    coding = settings["coding"]
    lowest = -math.inf if coding["min_log_ratio"] is None else coding["min_log_ratio"]
    box_coding = BoxCoding(**{**coding, "min_log_ratio": lowest})
    return PostProcessor(**{**settings, "coding": box_coding})(cls_logits, box_deltas, anchors_per_level, image_sizes)
