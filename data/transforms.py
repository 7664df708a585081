"""From a file's pixels to the detector's: augmentation for training, resizing for evaluation.

A transform takes and returns (image, target): image (3, H, W) uint8, of which ResizeAsTorchvision makes float32 in
0..255; target with "boxes" (n, 4) float32 xyxy in pixels of the image, "labels" and "crowd" (n,). It draws from
torch's default generator only and can be pickled.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from data.augment import Target, cut_window, random_canvas, random_crop, random_flip, random_window
from data.boxes import Size, scale_boxes

Transform = Callable[[Tensor, Target], tuple[Tensor, Target]]


def train_transform(
    name: str, image_size: Size, short_sides: tuple[int, int] | None = None, long_side: int | None = None
) -> Transform:
    """The augmentation of this name, which ends at image_size (height, width) whatever the aspect ratio.

    "ssd" is the paper's. "flip" mirrors left to right half of the time, "hvflip" top to bottom as well; nothing
    else is random in these two. "crop" cuts a window of image_size at the image's own scale, anywhere; nothing
    else is random, and nothing is resized.

    Args:
        short_sides, long_side: in place of image_size, keep the aspect ratio: for each image a short side is drawn
            from the whole range (lowest, highest), and the long side is limited as in ResizeShortSide. "crop" has no
            use for them.
    """
    if name == "crop":
        return CropAugmentation(image_size)
    final: Transform = Resize(image_size)
    if short_sides is not None:
        if long_side is None:
            raise ValueError("short_sides need a long_side")
        final = RandomShortSide(short_sides, long_side)
    if name == "ssd":
        return SSDAugmentation(final)
    if name in ("flip", "hvflip"):
        return FlipAugmentation(final, vertical=name == "hvflip")
    raise ValueError(f"unknown augmentation {name!r}: must be ssd, flip, hvflip or crop")


def eval_transform(
    short_side: int | None = None,
    long_side: int | None = None,
    *,
    size: Size | None = None,
    as_torchvision: bool = False,
) -> "Resize | ResizeShortSide":
    """Resizing for evaluation: to `size` (height, width) exactly, or within the limits of ResizeShortSide.

    Args:
        as_torchvision: ResizeAsTorchvision in place of ResizeShortSide.
    """
    if size is not None:
        return Resize(size)
    if short_side is None or long_side is None:
        raise ValueError("a size, or both short_side and long_side are needed")
    return (ResizeAsTorchvision if as_torchvision else ResizeShortSide)(short_side, long_side)


class SSDAugmentation:
    """Colour distortion, expansion, crop by IoU, final resize, mirroring left to right."""

    def __init__(self, final_resize: Transform) -> None:
        self.final_resize = final_resize

    def __call__(self, image: Tensor, target: Target) -> tuple[Tensor, Target]:
        canvas = random_canvas(*image.shape[-2:])
        window = random_crop(canvas, target["boxes"][~target["crowd"]])
        image, target = cut_window(image, target, window, distort=True)
        image, target = self.final_resize(image, target)
        return random_flip(image, target)


class FlipAugmentation:
    """Resize, mirroring left to right and, with `vertical`, top to bottom."""

    def __init__(self, final_resize: Transform, vertical: bool = False) -> None:
        self.final_resize, self.vertical = final_resize, vertical

    def __call__(self, image: Tensor, target: Target) -> tuple[Tensor, Target]:
        image, target = self.final_resize(image, target)
        image, target = random_flip(image, target)
        return random_flip(image, target, vertical=True) if self.vertical else (image, target)


class CropAugmentation:
    """A window of a fixed (height, width), at the image's own scale; `cut_window` says which objects stay."""

    def __init__(self, size: Size) -> None:
        self.size = size

    def __call__(self, image: Tensor, target: Target) -> tuple[Tensor, Target]:
        height, width = _size(image)
        return cut_window(image, target, random_window(height, width, self.size), distort=False)


class Resize:
    """To a fixed (height, width), whatever the aspect ratio."""

    def __init__(self, size: Size) -> None:
        self.size = size[0], size[1]

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
        scale = self._scale(size)
        height, width = (max(1, int(side * scale + 0.5)) for side in size)
        return height, width

    def _scale(self, size: Size) -> float:
        return min(self.long_side / max(size), self.short_side / min(size))

    def __call__(self, image: Tensor, target: Target) -> tuple[Tensor, Target]:
        return resize(image, target, self.output_size(_size(image)))


class RandomShortSide:
    """ResizeShortSide with a short side drawn from (lowest, highest) for each image."""

    def __init__(self, short_sides: tuple[int, int], long_side: int) -> None:
        self.short_sides, self.long_side = short_sides, long_side

    def __call__(self, image: Tensor, target: Target) -> tuple[Tensor, Target]:
        lowest, highest = self.short_sides
        short_side = int(torch.randint(lowest, highest + 1, ()))
        return ResizeShortSide(short_side, self.long_side)(image, target)


class ResizeAsTorchvision(ResizeShortSide):
    """torchvision's test rule: pixel values stay float32 in 0..255, not rounded, and sizes are rounded down, here to 1
    at least."""

    def output_size(self, size: Size) -> Size:
        scale = self._scale(size)
        height, width = (max(1, math.floor(side * scale)) for side in size)
        return height, width

    def __call__(self, image: Tensor, target: Target) -> tuple[Tensor, Target]:
        size = _size(image)
        new_size = self.output_size(size)
        resized = interpolate(image[None].float(), size=new_size, mode="bilinear")[0]
        return resized, {**target, "boxes": scale_boxes(target["boxes"], size, new_size)}


class OwnSize:
    """No resizing at all."""

    def output_size(self, size: Size) -> Size:
        """The same (height, width)."""
        return size

    def __call__(self, image: Tensor, target: Target) -> tuple[Tensor, Target]:
        return image, target


Resizing = Resize | ResizeShortSide | OwnSize


def resize(image: Tensor, target: Target, size: Size) -> tuple[Tensor, Target]:
    """Bilinear without antialiasing, as the authors resized; boxes are scaled by the exact ratio of each axis."""
    boxes = scale_boxes(target["boxes"], _size(image), size)
    image = F.resize(image, list(size), InterpolationMode.BILINEAR, antialias=False)
    return image, {**target, "boxes": boxes}


def _size(image: Tensor) -> Size:
    height, width = image.shape[-2:]
    return height, width
