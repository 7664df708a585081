"""What people hold an image in, as pixels."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from data import ImageError, read_image
from data.exif import Exif
from data.images import image_errors, rgb_pixels

ImageInput = str | os.PathLike[str] | Image.Image | np.ndarray | Tensor
EXPECTED = (
    "expected a path, a PIL image, a NumPy array (height, width, 3) of uint8, or a tensor (3, height, width) of uint8 "
    "or of floats in 0..1, all RGB"
)


def as_pixels(image: ImageInput, exif: Exif = "turn") -> Tensor:
    """(3, H, W) uint8, RGB, of any of these.

    Args:
        image: a path; a PIL image of any mode that `read_image` takes; an array (H, W, 3) of uint8; a tensor (3, H, W)
            of uint8, or of floats in 0..1, which are rounded to 255 steps.
        exif: what the EXIF orientation of a file or PIL image does, see `read_image`.
    Raises:
        ImageError: anything else, and files that cannot be read.
    """
    if isinstance(image, str | os.PathLike):
        return read_image(Path(image), exif=exif)
    if isinstance(image, Image.Image):
        with image_errors("PIL image"):
            return rgb_pixels(image, exif)
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise _refusal(f"array {image.shape} of {image.dtype}")
        return torch.from_numpy(np.array(image, order="C")).permute(2, 0, 1)  # also of views that run backwards
    if isinstance(image, Tensor):
        return _of_tensor(image.detach().cpu())
    raise _refusal(type(image).__name__)


def _of_tensor(image: Tensor) -> Tensor:
    is_float = image.is_floating_point()
    if not (is_float or image.dtype == torch.uint8) or image.dim() != 3 or len(image) != 3 or not image.numel():
        raise _refusal(f"tensor {tuple(image.shape)} of {str(image.dtype).removeprefix('torch.')}")
    if not is_float:
        return image
    lowest, highest = image.min().item(), image.max().item()
    if not (lowest >= 0 and highest <= 1):  # nor NaN
        raise _refusal(f"float tensor with values from {lowest:g} to {highest:g}")
    return (image.float() * 255).round().to(torch.uint8)


def _refusal(given: Any) -> ImageError:
    return ImageError(f"{given} is no image: {EXPECTED}", "not an image")
