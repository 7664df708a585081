"""Decoded images in files that all processes of all runs map into memory, so that an image is decoded once."""

import hashlib
import os
import threading
from pathlib import Path

import torch
from torch import Tensor

from data.boxes import Size
from data.errors import DatasetError
from data.exif import Exif
from data.files import write_atomically
from data.images import read_image


class PixelFolder:
    """A folder of raw pixels, three bytes each, which the first to read an image puts there.

    A name is made of the image file's path, size and time, so a file that was changed is decoded anew. Nothing is ever
    removed.

    Raises:
        DatasetError: the folder cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unusable(folder, error) from error

    def read(self, path: Path, size: Size, encoded: Tensor | None, exif: Exif) -> Tensor:
        """What `read_image` returns for these arguments, in memory of the caller's own: writing to it changes no file.

        Raises:
            ImageError: as `read_image`.
            DatasetError: the pixels cannot be written.
        """
        try:
            state = os.stat(path)
        except (OSError, ValueError):  # read_image says what is wrong
            return read_image(path, size, encoded, exif)
        facts = f"{size}\0{exif}\0{state.st_size}\0{state.st_mtime_ns}\0".encode() + os.fsencode(os.path.abspath(path))
        file = self.folder / f"{hashlib.blake2b(facts, digest_size=16).hexdigest()}.rgb"
        try:
            pixels = torch.from_file(str(file), shared=False, size=3 * size[0] * size[1], dtype=torch.uint8)
        except RuntimeError:  # not there yet, or too short
            pixels = read_image(path, size, encoded, exif).permute(1, 2, 0)
            content = pixels.contiguous().numpy().data
            # Others may decode the same image at the same time. Forked processes share thread identifiers, but no ids.
            own = file.with_suffix(f".{os.getpid()}-{threading.get_native_id()}")
            try:
                write_atomically(own, lambda opened: opened.write(content))
                own.replace(file)
            except OSError as error:
                raise _unusable(file, error) from error
        return pixels.view(*size, 3).permute(2, 0, 1)


def _unusable(path: Path, error: OSError) -> DatasetError:
    reason = error.strerror or error
    return DatasetError(f"{path}: cannot be written ({reason}); let ALRP_PIXELS name a folder that can, or unset it")
