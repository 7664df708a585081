"""Detectors, from images to detections, or with targets to losses.

Conventions, fixed here once for the whole project:

- Boxes are (x1, y1, x2, y2) in continuous pixels of the image that the network sees; the width is x2 - x1
  (no +1). Image and feature sizes are (height, width).
- Labels are 0..K-1, without a background column: scores are K independent sigmoids of `cls_logits`, or with a loss
  over a softmax (`ce`) its K shares beside a background logit of 0.
- Matchers say -1 for a negative anchor and -2 for an ignored one; in the losses the same are 0 and -1,
  positive is 1.
- An anchor's ratio is height / width, its centre is (column·stride, row·stride); flat order is level, row,
  column, ratio, scale, and in the channels of a head's map anchor-major, (anchor, class) or (anchor,
  coordinate).
- `box_deltas` are (dx, dy, dw, dh) over the divisors (0.1, 0.1, 0.2, 0.2), shifts in anchor sizes and
  logarithms of size ratios; decoding clamps the latter to ±|ln(16/1000)|. `model.box_convention: torchvision`
  stands for torchvision's own rules, see `detector.anchors` and `detector.boxes`; the RPN of Faster R-CNN's
  baselines has divisors of 1.
- Images are float RGB in 0..1; the detector subtracts the ImageNet mean (0.485, 0.456, 0.406) and divides by
  the standard deviation (0.229, 0.224, 0.225) itself. Both sides are multiples of 32, padded at the right
  and bottom.
"""

from detector.build import build_detector
from detector.config import ModelConfig
from detector.contract import Detector
from detector.families import build_references
from detector.weights import WeightsError

__all__ = ["Detector", "ModelConfig", "WeightsError", "build_detector", "build_references"]
