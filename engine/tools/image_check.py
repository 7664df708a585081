"""The image files of a data set, looked at one by one before training."""

import hashlib
import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from PIL import Image

from data import CocoDetection, ImageError, read_image
from data.cpus import usable_cpus
from data.exif import Exif, ExifSizes, exif_sizes, is_shown
from data.images import read_file
from engine.run.progress import progress


@dataclass
class Look:
    """Findings about an image file.

    Attributes:
        size: annotated (height, width).
        digest: of the file's bytes; None where they cannot be read.
        exif: None where the image cannot be read.
        error: why it cannot be read, or does not fit its annotation.
    """

    image_id: int
    size: tuple[int, int]
    digest: bytes | None = None
    exif: ExifSizes | None = None
    error: ImageError | None = None


def look_at_images(dataset: CocoDetection) -> list[Look]:
    """Reads every image as training does."""

    def look(index: int) -> Look:
        height, width = dataset.sizes[index].tolist()
        path, found = dataset.path(index), Look(int(dataset.image_ids[index]), (height, width))
        try:
            encoded = read_file(path)
            content = encoded.numpy().data
            found.digest = hashlib.blake2b(content, digest_size=16).digest()
            read_image(path, found.size, encoded, dataset.exif)
            with Image.open(io.BytesIO(content)) as image:
                found.exif = exif_sizes(image)
        except ImageError as error:
            found.error = error
        return found

    looks = []
    with ThreadPoolExecutor(usable_cpus()) as pool, progress(total=len(dataset), desc="images", unit="image") as bar:
        for found in pool.map(look, range(len(dataset))):
            looks.append(found)
            bar.update()
    return looks


def exif_notes(looks: Sequence[Look], exif: Exif) -> Iterator[str]:
    """Images with an EXIF orientation: how many are read in which way, and of how many the size does not tell."""
    tagged = [(look.size, look.exif) for look in looks if look.exif is not None and look.exif.orientation > 1]
    if not tagged:
        return
    shown = sum(is_shown(size, sizes, exif) for size, sizes in tagged)
    same = sum(sizes.stored == sizes.shown for _, sizes in tagged)
    yield (
        f"EXIF turns {len(tagged)} images: {shown} are read as viewers show them, {len(tagged) - shown} as stored. In "
        f"{same} of them the turn keeps the size, which cannot tell how they were labelled: data.exif={exif} decides"
    )
