"""RetinaNet: its heads and the detector made of them."""

from detector.retinanet.retinanet import RetinaNet

__all__ = ["RetinaNet"]
