"""Image files of any colour mode as uint8 RGB tensors."""

import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from data.errors import ImageError

MEAN_COLOUR = (124, 116, 104)  # ImageNet's mean RGB, rounded: fills padding and empty canvas
EXACT_MEAN_COLOUR = (123.675, 116.28, 103.53)  # not rounded, for images of float32: what the detector makes zeros of

_ORIENTATION = 0x0112  # EXIF tag; its values 5 to 8 swap width and height
_SIXTEEN_BIT = ("I", "I;16", "I;16L", "I;16B", "I;16N")


def read_image(path: str | Path, size: tuple[int, int] | None = None) -> Tensor:
    """Pixels of an image file.

    Grey, palette and CMYK images are converted and 16-bit grey is scaled to 8 bits. Transparency is dropped: the
    colours below it stay as stored. Of an animation comes the first frame.

    Args:
        path: any file that Pillow reads.
        size: (height, width) that the annotations give. The pixels stay as they are stored, unless only the
            image turned by its EXIF tag has this size. None: turned by the EXIF tag, as a viewer shows it.
    Returns:
        (3, H, W) uint8, RGB; channels are last in memory, which makes resizing 2–4× faster.
    Raises:
        ImageError: missing, empty, unreadable or truncated file, unknown pixel format, more pixels than Pillow opens,
            or another size.
    """
    try:
        with Image.open(path) as image:
            pixels = np.array(_to_rgb(_upright(image, size)))
    except FileNotFoundError:
        raise ImageError(f"{path}: no such image file", "missing") from None
    except MemoryError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(f"{path}: unreadable image ({error})", "oversized") from error
    except Exception as error:  # Pillow's decoders raise nearly anything on broken files
        if os.path.isfile(path) and os.path.getsize(path) == 0:
            raise ImageError(f"{path}: unreadable image (the file is empty)", "empty") from None
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"{path}: unreadable image ({reason})", "damaged") from error
    height, width = pixels.shape[:2]
    if size is not None and (height, width) != tuple(size):
        raise ImageError(
            f"{path}: the image is {width}×{height}, its annotation says {size[1]}×{size[0]}",
            "of another size than annotated",
        )
    return torch.from_numpy(pixels).permute(2, 0, 1)


def blank_images(count: int, height: int, width: int, dtype: torch.dtype = torch.uint8) -> Tensor:
    """(count, 3, height, width) uint8 or float32 in ImageNet's mean colour, channels last in memory."""
    colour = EXACT_MEAN_COLOUR if dtype.is_floating_point else MEAN_COLOUR
    row = torch.tensor(colour, dtype=dtype).repeat(width)
    rows = row.expand(count * height, -1).contiguous()  # whole rows copy 8× faster than pixels repeat
    return rows.view(count, height, width, 3).permute(0, 3, 1, 2)


def _upright(image: Image.Image, size: tuple[int, int] | None) -> Image.Image:
    if size is None:
        return ImageOps.exif_transpose(image)
    turned = image.size == tuple(size) != (image.height, image.width)  # Pillow's size is (width, height)
    if turned and image.getexif().get(_ORIENTATION, 1) >= 5:
        return ImageOps.exif_transpose(image)
    return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in _SIXTEEN_BIT:
        values = np.asarray(image, dtype=np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("grey values beyond 16 bits")
        return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns about such files on the direct way to RGB
    return image.convert("RGB")
