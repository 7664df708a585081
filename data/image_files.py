"""Image files in folders: which names are images, and where they are."""

import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path

# those of formats that Pillow reads, as cameras and labelling tools write them
IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"),
    *(".jpe", ".jfif", ".jif", ".mpo", ".jp2", ".dib", ".apng", ".ppm", ".pgm", ".pbm", ".pnm"),
)
# those of containers that hold video as a rule; without .ts, which is TypeScript's too
VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv"),
    *(".mts", ".m2ts", ".3gp", ".ogv"),
)


def is_image(path: Path) -> bool:
    """Whether the name is that of an image."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def is_video(path: Path) -> bool:
    """Whether the name is that of a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def files_below(folder: Path) -> Iterator[Path]:
    """The files in a folder and the folders in it, also linked ones, each folder once.

    Hidden files and folders are passed over: systems and editors keep copies of images there. A link to nothing is
    among the files, so that whoever reads it says so.

    Raises:
        OSError: a folder cannot be read.
    """
    # links last: a folder that lies in the tree is found under its own name
    folders, links, seen = deque([folder]), deque[Path](), set()
    while folders or links:
        current = (folders or links).popleft()
        status = os.stat(current)
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        for name in sorted(os.listdir(current)):
            path = current / name
            if name.startswith("."):
                continue
            if os.path.isdir(path):
                (links if os.path.islink(path) else folders).append(path)
            elif os.path.isfile(path) or not os.path.exists(path):  # no pipes and devices
                yield path
