"""COCO AP, oLRP and score thresholds of detections, by arrays. Needs numpy alone; also installed as `alrp.metrics`."""

from typing import TYPE_CHECKING

from .coco_files import DetectionsError
from .coco_metrics import evaluate, evaluate_detections, match_detections, metrics_of
from .lrp import evaluate_lrp, lrp_curve

if TYPE_CHECKING:
    from .optimal_lrp import OptimalLRP

__all__ = [
    "DetectionsError",
    "OptimalLRP",
    "evaluate",
    "evaluate_detections",
    "evaluate_lrp",
    "lrp_curve",
    "match_detections",
    "metrics_of",
]


def __getattr__(name: str) -> object:
    if name == "OptimalLRP":  # needs torch, which the rest does without
        from .optimal_lrp import OptimalLRP

        return OptimalLRP
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
