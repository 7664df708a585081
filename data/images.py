"""Image files of any colour mode as uint8 RGB tensors."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from data.boxes import Size
from data.errors import ImageError
from data.exif import INVERSE, TURNS, Exif, is_shown, orientation_of, sizes_of

# ImageNet's mean RGB, which the detectors make zeros of, for images of float32; rounded it fills padding and canvas
EXACT_MEAN_COLOUR = (123.675, 116.28, 103.53)
MEAN_COLOUR = tuple(round(value) for value in EXACT_MEAN_COLOUR)

_SIXTEEN_BIT = ("I", "I;16", "I;16L", "I;16B", "I;16N")


def read_file(path: str | Path) -> Tensor:
    """(n,) uint8, the bytes of a file. Raises ImageError where it is missing, empty or cannot be read."""
    try:
        if os.path.exists(path) and not os.path.isfile(path):  # a pipe or a device might never end
            raise ImageError(f"{path}: unreadable image (not a file)", "damaged")
        encoded = np.fromfile(path, dtype=np.uint8)
    except FileNotFoundError:
        raise ImageError(f"{path}: no such image file", "missing") from None
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise ImageError(
            f"{path}: unreadable image ({getattr(error, 'strerror', None) or error})", "damaged"
        ) from error
    if not len(encoded):
        raise ImageError(f"{path}: unreadable image (the file is empty)", "empty")
    return torch.from_numpy(encoded)


def read_image(
    path: str | Path, size: Size | None = None, encoded: Tensor | None = None, exif: Exif = "turn"
) -> Tensor:
    """Pixels of an image file.

    Grey, palette and CMYK images are converted and 16-bit grey is scaled to 8 bits. Transparency is dropped: the
    colours below it stay as stored. Of an animation comes the first frame.

    Args:
        path: any file that Pillow reads.
        size: (height, width) that the annotations give.
        encoded: the file's bytes where they are at hand, as of `read_file`; the path is then only named in errors.
        exif: what an EXIF orientation does. "turn": the pixels are turned as a viewer shows them, unless `size` fits
            only the image as it is stored. "ignore": they stay as stored, unless `size` fits only the turned image.
            "legacy": as "turn" without a `size`, else as "ignore" (but for TIFF): the rule before `data.exif`.
    Returns:
        (3, H, W) uint8, RGB; channels are last in memory, which makes resizing 2–4× faster.
    Raises:
        ImageError: missing, empty, unreadable or truncated file, unknown pixel format, more pixels than Pillow opens,
            or another size.
    """
    encoded = read_file(path) if encoded is None else encoded
    with image_errors(path), Image.open(io.BytesIO(encoded.numpy().data)) as image:
        pixels = _decode(image, encoded, None if size is None else (size[0], size[1]), exif)
    height, width = pixels.shape[1:]
    if size is not None and (height, width) != tuple(size):
        raise ImageError(
            f"{path}: the image is {width}×{height}, its annotation says {size[1]}×{size[0]}",
            "of another size than annotated",
        )
    return pixels


def rgb_pixels(image: Image.Image, exif: Exif = "turn") -> Tensor:
    """Pixels of an image that Pillow has opened, at its present frame; result and conversions as of `read_image`.

    Raises:
        Exception: nearly any, which `image_errors` turns into ImageError.
    """
    return _decode(image, None, None, exif)


@contextmanager
def image_errors(name: object) -> Iterator[None]:
    """Turns what Pillow raises of an image into ImageError, which calls it by the name."""
    try:
        yield
    except (MemoryError, ImageError):
        raise
    except UnidentifiedImageError:
        raise ImageError(f"{name}: unreadable image (not of a format that Pillow knows)", "damaged") from None
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}: unreadable image ({error})", "oversized") from error
    except Exception as error:  # Pillow's decoders raise nearly anything on broken files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"{name}: unreadable image ({reason})", "damaged") from error


def blank_images(count: int, height: int, width: int, dtype: torch.dtype = torch.uint8) -> Tensor:
    """(count, 3, height, width) uint8 or float32 in ImageNet's mean colour, channels last in memory."""
    colour = EXACT_MEAN_COLOUR if dtype.is_floating_point else MEAN_COLOUR
    row = torch.tensor(colour, dtype=dtype).repeat(width)
    rows = row.expand(count * height, -1).contiguous()  # whole rows copy 8× faster than pixels repeat
    return rows.view(count, height, width, 3).permute(0, 3, 1, 2)


def _decode(image: Image.Image, encoded: Tensor | None, size: Size | None, exif: Exif) -> Tensor:
    """(3, H, W) uint8 of an image that Pillow has opened; the other arguments as of `read_image`."""
    orientation, is_turned = orientation_of(image)
    pixels = _pixels(image, encoded)
    if orientation > 1:
        height, width, _ = pixels.shape
        turn = is_shown(size, sizes_of((height, width), orientation, is_turned), exif)
        if turn != is_turned and not (exif == "legacy" and is_turned):  # that rule took TIFFs as Pillow gave them
            pixels = _turn(pixels, orientation if turn else INVERSE.get(orientation, orientation))
    return pixels.permute(2, 0, 1)


def _turn(pixels: Tensor, orientation: int) -> Tensor:
    """(H, W, 3) pixels that are stored with an EXIF orientation, upright."""
    swap, axes = TURNS[orientation]
    return (pixels.transpose(0, 1) if swap else pixels).flip(axes).contiguous()


def _pixels(image: Image.Image, encoded: Tensor | None) -> Tensor:
    """(H, W, 3) uint8 as Pillow gives them."""
    if encoded is not None and image.format == "JPEG" and image.mode in ("L", "RGB"):
        try:  # the same libjpeg-turbo without Pillow's copies: the same pixels in 0.7 of the time
            return decode_jpeg(encoded, ImageReadMode.RGB).permute(1, 2, 0)
        except RuntimeError:  # of damaged files, Pillow reads some and says of the others what is wrong
            pass
    return torch.from_numpy(np.array(_to_rgb(image)))


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
