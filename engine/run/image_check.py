"""The image files of a data set, looked at one by one before training."""

import hashlib
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from PIL import Image

from data import CocoDetection, DatasetError, ImageError
from data.coco import IMAGE_REMEDY
from data.counts import counted
from data.cpus import usable_cpus
from data.exif import Exif, ExifSizes, exif_sizes, is_shown
from data.images import read_file
from engine.run.distributed import Processes
from engine.run.progress import progress

QUIET_SECONDS = 3.0  # before a progress bar appears


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


def require_readable(datasets: Sequence[CocoDetection], processes: Processes) -> None:
    """Reads every image once, each process its share of them, so that a damaged one costs no training.

    Raises:
        DatasetError: some cannot be used; on every process, with the first and their number.
    """
    for dataset in datasets:
        share = range(processes.rank, len(dataset), processes.world_size)
        looks = look_at_images(dataset, share, hidden=not processes.is_main)
        found = [(look.image_id, str(look.error)) for look in looks if look.error is not None]
        unusable = [each for process in processes.gather(found) for each in process]
        if unusable:
            image_id, error = unusable[0]
            count = (
                f"{len(unusable)} of {counted(len(dataset), 'image')} cannot be used, such as "
                if len(unusable) > 1
                else ""
            )
            raise DatasetError(f"{count}{error} (image id {image_id} in {dataset.annotation_file}); {IMAGE_REMEDY}")


def look_at_images(dataset: CocoDetection, indices: Iterable[int] | None = None, hidden: bool = False) -> list[Look]:
    """Reads images, all or those of the indices, as training does.

    Args:
        hidden: without a progress bar, which otherwise appears after a moment.
    """
    chosen = range(len(dataset)) if indices is None else list(indices)

    def look(index: int) -> Look:
        height, width = dataset.sizes[index].tolist()
        path, found = dataset.path(index), Look(int(dataset.image_ids[index]), (height, width))
        try:
            encoded = read_file(path)
            content = encoded.numpy().data
            found.digest = hashlib.blake2b(content, digest_size=16).digest()
            dataset.pixels(index, encoded)
            with Image.open(io.BytesIO(content)) as image:
                found.exif = exif_sizes(image)
        except ImageError as error:
            found.error = error
        return found

    looks = []
    pool = ThreadPoolExecutor(_threads())
    try:
        with progress(total=len(chosen), desc="read images", unit="image", disable=hidden, delay=QUIET_SECONDS) as bar:
            for found in pool.map(look, chosen):
                looks.append(found)
                bar.update()
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C need not wait for the images that are left
    return looks


def _threads() -> int:
    """Of this process, of those that a host has."""
    return max(1, usable_cpus() // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def exif_notes(looks: Sequence[Look], exif: Exif) -> Iterator[str]:
    """Images with an EXIF orientation: how many are read in which way, and of how many the size does not tell."""
    tagged = [(look.size, look.exif) for look in looks if look.exif is not None and look.exif.orientation > 1]
    if not tagged:
        return
    shown = sum(is_shown(size, sizes, exif) for size, sizes in tagged)
    counts = {"as viewers show them": shown, "as stored": len(tagged) - shown}
    ways = ", ".join(f"{way}: {count}" for way, count in counts.items() if count)
    same = sum(sizes.stored == sizes.shown for _, sizes in tagged)
    doubt = (
        f". The turn of {same} keeps the size, which cannot tell how labels were drawn: data.exif={exif} decides"
        if same
        else ""
    )
    yield f"EXIF turns {counted(len(tagged), 'image')}; read {ways}{doubt}"
