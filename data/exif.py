"""EXIF orientation: how images are turned, and their sizes either way. Does without PyTorch, as converters do."""

import warnings
from typing import Literal, NamedTuple

from PIL import Image

from data.boxes import Size

Exif = Literal["turn", "ignore", "legacy"]  # see `read_image`

_ORIENTATION = 0x0112  # EXIF tag
# by its value, what makes stored pixels upright: whether rows and columns swap, and the axes that are then reversed
TURNS = {2: (False, [1]), 3: (False, [0, 1]), 4: (False, [0]), 5: (True, []), 6: (True, [1]), 7: (True, [0, 1]),
          8: (True, [0])}  # fmt: skip
INVERSE = {6: 8, 8: 6}  # all others undo themselves

warnings.filterwarnings("ignore", "Corrupt EXIF data", UserWarning, "PIL")  # such tags are passed over


class ExifSizes(NamedTuple):
    """EXIF orientation of an image, 1 (as stored) to 8, and its size as stored and as a viewer shows it."""

    orientation: int
    stored: Size
    shown: Size


def exif_sizes(image: Image.Image) -> ExifSizes:
    """Reads the EXIF tag of an image that Pillow has opened; once for each, as decoding may drop the tag."""
    orientation, is_turned = orientation_of(image)
    return sizes_of((image.height, image.width), orientation, is_turned)


def is_shown(size: Size | None, sizes: ExifSizes, exif: Exif) -> bool:
    """Whether an image is read as a viewer shows it, and not as stored; arguments as of `read_image`."""
    prefers_shown = exif == "turn" or (exif == "legacy" and size is None)
    if size in (sizes.stored, sizes.shown) and sizes.stored != sizes.shown:
        return size == sizes.shown
    return prefers_shown


def orientation_of(image: Image.Image) -> tuple[int, bool]:
    """The EXIF orientation, 1 where there is none, and whether Pillow has turned the pixels already."""
    if image.format == "PNG":
        image.load()  # its tags may follow the pixels; what is damaged must not pass for an image without tags
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # Pillow's reader raises nearly anything on broken tags, which viewers pass over
        return 1, False
    if orientation not in TURNS:
        return 1, False
    if image.format != "TIFF":
        return int(orientation), False
    image.load()  # which turns TIFFs, alone, and drops their tag
    return int(orientation), _ORIENTATION not in image.getexif()


def sizes_of(own: Size, orientation: int, is_turned: bool) -> ExifSizes:
    """Of an image that has the size `own` in Pillow, which may have turned it."""
    swapped = own[::-1] if orientation >= 5 else own
    return ExifSizes(orientation, swapped, own) if is_turned else ExifSizes(orientation, own, swapped)
