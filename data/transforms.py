"""From a file's pixels to the detector's: augmentation for training, resizing for evaluation.

A transform takes and returns (image, target): image (3, H, W) uint8; target with "boxes" (n, 4) float32 xyxy in
pixels of the image, "labels" and "crowd" (n,). It draws from torch's default generator only and can be pickled.
"""

from collections.abc import Callable

from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from data.augment import Target, cut_window, random_canvas, random_crop, random_flip

Size = tuple[int, int]  # (height, width)
Transform = Callable[[Tensor, Target], tuple[Tensor, Target]]


def train_transform(name: str, image_size: Size) -> Transform:
    """The augmentation of this name, which ends at image_size (height, width) whatever the aspect ratio.

    "ssd" is the paper's. "flip" mirrors left to right half of the time, "hvflip" top to bottom as well; nothing
    else is random in these two.
    """
    if name == "ssd":
        return SSDAugmentation(image_size)
    if name in ("flip", "hvflip"):
        return FlipAugmentation(image_size, vertical=name == "hvflip")
    raise ValueError(f"unknown augmentation {name!r}: must be ssd, flip or hvflip")


def eval_transform(
    short_side: int | None = None, long_side: int | None = None, *, size: Size | None = None
) -> "Resize | ResizeShortSide":
    """Resizing for evaluation: to `size` (height, width) exactly, or within the limits of ResizeShortSide."""
    return ResizeShortSide(short_side, long_side) if size is None else Resize(size)


class SSDAugmentation:
    """Colour distortion, expansion, crop by IoU, resize to (height, width), mirroring left to right."""

    def __init__(self, size: Size) -> None:
        self.size = tuple(size)

    def __call__(self, image: Tensor, target: Target) -> tuple[Tensor, Target]:
        canvas = random_canvas(*image.shape[-2:])
        window = random_crop(canvas, target["boxes"][~target["crowd"]])
        image, target = cut_window(image, target, window)
        image, target = resize(image, target, self.size)
        return random_flip(image, target)


class FlipAugmentation:
    """Resize to (height, width), mirroring left to right and, with `vertical`, top to bottom."""

    def __init__(self, size: Size, vertical: bool = False) -> None:
        self.size, self.vertical = tuple(size), vertical

    def __call__(self, image: Tensor, target: Target) -> tuple[Tensor, Target]:
        image, target = resize(image, target, self.size)
        image, target = random_flip(image, target)
        return random_flip(image, target, vertical=True) if self.vertical else (image, target)


class Resize:
    """To a fixed (height, width), whatever the aspect ratio."""

    def __init__(self, size: Size) -> None:
        self.size = tuple(size)

    def output_size(self, size: Size) -> Size:
        """(height, width) of the result for an image of this one."""
        return self.size

    def __call__(self, image: Tensor, target: Target) -> tuple[Tensor, Target]:
        return resize(image, target, self.size)


class ResizeShortSide:
    """The largest size of the same aspect ratio with both sides within their limits: the authors' test rule."""

    def __init__(self, short_side: int, long_side: int) -> None:
        self.short_side, self.long_side = short_side, long_side

    def output_size(self, size: Size) -> Size:
        """(height, width) of the result for an image of this one."""
        scale = min(self.long_side / max(size), self.short_side / min(size))
        height, width = (max(1, int(side * scale + 0.5)) for side in size)
        return height, width

    def __call__(self, image: Tensor, target: Target) -> tuple[Tensor, Target]:
        return resize(image, target, self.output_size(tuple(image.shape[-2:])))


def resize(image: Tensor, target: Target, size: Size) -> tuple[Tensor, Target]:
    """Bilinear without antialiasing, as the authors resized; boxes are scaled by the exact ratio of each axis."""
    boxes = scale_boxes(target["boxes"], tuple(image.shape[-2:]), size)
    image = F.resize(image, list(size), InterpolationMode.BILINEAR, antialias=False)
    return image, {**target, "boxes": boxes}


def scale_boxes(boxes: Tensor, from_size: Size, to_size: Size) -> Tensor:
    """(n, 4) xyxy boxes of an image of from_size (height, width), in pixels of that image resized to to_size."""
    y, x = (new / old for new, old in zip(to_size, from_size, strict=True))
    return boxes * boxes.new_tensor([x, y, x, y])


def to_original(boxes: Tensor, size: Size, orig_size: Size) -> Tensor:
    """(n, 4) xyxy boxes of the resized image, in pixels of the file: the inverse of an evaluation transform.

    Args:
        size, orig_size: the target's (height, width) of the resized image, without padding, and of the file.
    """
    return scale_boxes(boxes, size, orig_size)
