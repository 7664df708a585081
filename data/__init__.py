"""Data in COCO format: from files on disk to batches of images and targets.

Boxes are xyxy in continuous pixels, width is x2 - x1; sizes are (height, width); labels are 0..K-1; images are
uint8 RGB. Whatever is random depends on (seed, epoch, index) alone.
"""

from data.coco import CocoDetection
from data.errors import DatasetError, ImageError
from data.images import read_image
from data.loader import collate, eval_loader, padded_size, train_loader
from data.sampler import TrainBatchSampler, eval_batches
from data.transforms import eval_transform, to_original, train_transform

__all__ = [
    "CocoDetection",
    "DatasetError",
    "ImageError",
    "TrainBatchSampler",
    "collate",
    "eval_batches",
    "eval_loader",
    "eval_transform",
    "padded_size",
    "read_image",
    "to_original",
    "train_loader",
    "train_transform",
]
