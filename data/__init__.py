"""Data in COCO format: from files on disk to batches of images and targets.

Boxes are xyxy in continuous pixels, width is x2 - x1; sizes are (height, width); labels are 0..K-1; images are
uint8 RGB. Whatever is random depends on (seed, epoch, index) alone.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from data.coco import CocoDetection
    from data.errors import DatasetError, ImageError
    from data.images import read_image
    from data.loader import collate, eval_loader, padded_size, train_loader
    from data.sampler import TrainBatchSampler, eval_batches
    from data.transforms import eval_transform, train_transform

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
    "train_loader",
    "train_transform",
]

# by module, imported when a name is asked for: the converters share this package and do without PyTorch
_HOMES = {
    "data.coco": ("CocoDetection",),
    "data.errors": ("DatasetError", "ImageError"),
    "data.images": ("read_image",),
    "data.loader": ("collate", "eval_loader", "padded_size", "train_loader"),
    "data.sampler": ("TrainBatchSampler", "eval_batches"),
    "data.transforms": ("eval_transform", "train_transform"),
}


def __getattr__(name: str) -> object:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
