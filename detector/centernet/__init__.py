"""CenterNet, keypoint triplets: its settings, pooling, head, targets, objective, decoding, and the detector of them."""

from detector.centernet.pooling import bottom_pool, left_pool, right_pool, top_pool

__all__ = ["bottom_pool", "left_pool", "right_pool", "top_pool"]
