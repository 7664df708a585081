"""Image files of any colour mode as uint8 RGB tensors."""

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from data.errors import ImageError

# ImageNet's mean RGB, which the detectors make zeros of, for images of float32; rounded it fills padding and canvas
EXACT_MEAN_COLOUR = (123.675, 116.28, 103.53)
MEAN_COLOUR = tuple(round(value) for value in EXACT_MEAN_COLOUR)

_ORIENTATION = 0x0112  # EXIF tag; its values 5 to 8 swap width and height
_SIXTEEN_BIT = ("I", "I;16", "I;16L", "I;16B", "I;16N")


def read_file(path: str | Path) -> Tensor:
    """(n,) uint8, the bytes of a file. Raises ImageError where it is missing, empty or cannot be read."""
    try:
        encoded = np.fromfile(path, dtype=np.uint8)
    except FileNotFoundError:
        raise ImageError(f"{path}: no such image file", "missing") from None
    except OSError as error:
        raise ImageError(f"{path}: unreadable image ({error.strerror or error})", "damaged") from error
    if not len(encoded):
        raise ImageError(f"{path}: unreadable image (the file is empty)", "empty")
    return torch.from_numpy(encoded)


def read_image(path: str | Path, size: tuple[int, int] | None = None, encoded: Tensor | None = None) -> Tensor:
    """Pixels of an image file.

    Grey, palette and CMYK images are converted and 16-bit grey is scaled to 8 bits. Transparency is dropped: the
    colours below it stay as stored. Of an animation comes the first frame.

    Args:
        path: any file that Pillow reads.
        size: (height, width) that the annotations give. The pixels stay as they are stored, unless only the
            image turned by its EXIF tag has this size. None: turned by the EXIF tag, as a viewer shows it.
        encoded: the file's bytes where they are at hand, as of `read_file`; the path is then only named in errors.
    Returns:
        (3, H, W) uint8, RGB; channels are last in memory, which makes resizing 2–4× faster.
    Raises:
        ImageError: missing, empty, unreadable or truncated file, unknown pixel format, more pixels than Pillow opens,
            or another size.
    """
    encoded = read_file(path) if encoded is None else encoded
    try:
        with Image.open(io.BytesIO(encoded.numpy())) as image:
            pixels = _decode(image, encoded, _must_turn(image, size))
    except MemoryError:
        raise
    except UnidentifiedImageError:
        raise ImageError(f"{path}: unreadable image (not of a format that Pillow knows)", "damaged") from None
    except Image.DecompressionBombError as error:
        raise ImageError(f"{path}: unreadable image ({error})", "oversized") from error
    except Exception as error:  # Pillow's decoders raise nearly anything on broken files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"{path}: unreadable image ({reason})", "damaged") from error
    height, width = pixels.shape[1:]
    if size is not None and (height, width) != tuple(size):
        raise ImageError(
            f"{path}: the image is {width}×{height}, its annotation says {size[1]}×{size[0]}",
            "of another size than annotated",
        )
    return pixels


def blank_images(count: int, height: int, width: int, dtype: torch.dtype = torch.uint8) -> Tensor:
    """(count, 3, height, width) uint8 or float32 in ImageNet's mean colour, channels last in memory."""
    colour = EXACT_MEAN_COLOUR if dtype.is_floating_point else MEAN_COLOUR
    row = torch.tensor(colour, dtype=dtype).repeat(width)
    rows = row.expand(count * height, -1).contiguous()  # whole rows copy 8× faster than pixels repeat
    return rows.view(count, height, width, 3).permute(0, 3, 1, 2)


def _must_turn(image: Image.Image, size: tuple[int, int] | None) -> bool:
    """Whether the EXIF tag is to be followed (see `read_image`)."""
    # Pillow's size is (width, height)
    if size is not None and not image.size == tuple(size) != (image.height, image.width):
        return False
    return image.getexif().get(_ORIENTATION) in range(2 if size is None else 5, 9)


def _decode(image: Image.Image, encoded: Tensor, turn: bool) -> Tensor:
    """(3, H, W) uint8 of a file that Pillow has opened."""
    if image.format == "JPEG" and image.mode in ("L", "RGB") and not turn:
        try:  # the same libjpeg-turbo without Pillow's copies: the same pixels in 0.7 of the time
            return decode_jpeg(encoded, ImageReadMode.RGB)
        except RuntimeError:  # of damaged files, Pillow reads some and says of the others what is wrong
            pass
    pixels = np.array(_to_rgb(ImageOps.exif_transpose(image) if turn else image))
    return torch.from_numpy(pixels).permute(2, 0, 1)


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
