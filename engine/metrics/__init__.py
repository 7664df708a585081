"""COCO AP and oLRP of detections, on arrays. Imports numpy and pycocotools alone; also installed as `alrp.metrics`."""

from .coco_metrics import DetectionsError, evaluate_detections, match_detections
from .lrp import evaluate_lrp, lrp_curve

__all__ = ["DetectionsError", "evaluate_detections", "evaluate_lrp", "lrp_curve", "match_detections"]
