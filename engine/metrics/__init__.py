"""COCO AP, oLRP and score thresholds of detections, by arrays. Needs numpy alone; also installed as `alrp.metrics`."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .coco_metrics import evaluate, evaluate_detections, match_detections, metrics_of
    from .errors import DetectionsError
    from .lrp import evaluate_lrp, lrp_curve
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

# Imported when first asked for: `OptimalLRP` needs torch, which the rest does without, and the command says in one line
# where numpy is missing.
_HOMES = {
    "DetectionsError": "errors",
    "OptimalLRP": "optimal_lrp",
    "evaluate": "coco_metrics",
    "evaluate_detections": "coco_metrics",
    "evaluate_lrp": "lrp",
    "lrp_curve": "lrp",
    "match_detections": "coco_metrics",
    "metrics_of": "coco_metrics",
}

if not TYPE_CHECKING:  # a type checker would take any name for one of these

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f".{_HOMES[name]}", __name__), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
