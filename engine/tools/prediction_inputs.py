"""The files that `predict.py` detects on: images, animated pictures and videos, and where their pictures go."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from data import DatasetError
from data.frames import can_read_videos, is_animated
from data.image_files import IMAGE_SUFFIXES, VIDEO_SUFFIXES, files_below, is_image, is_video
from data.output_folder import OutputFolder

RESULTS = "detections.json"  # beside the pictures


class Input(NamedTuple):
    """A file and its picture below the output folder: .jpg, or .mp4 where all `frames` of it are read."""

    file: Path
    picture: Path
    frames: bool = False


def find_inputs(paths: Sequence[str | Path], output: str | Path, stills: bool = False) -> list[Input]:
    """The image and video files among `paths` and in the folders among them, recursively, each once and in order.

    Args:
        output: folder of the results; what lies in it is not an input, nor what earlier runs wrote elsewhere.
        stills: of animated pictures the first frame only, as without PyAV.
    Returns:
        Pictures lie below `output` as the file lies below the folder that was named, with a number where another
        file's picture has that name.
    Raises:
        DatasetError: a path does not exist, or a folder holds no image or is in `output`.
    """
    output = Path(output)
    inputs: list[Input] = []
    seen: set[Path] = set()
    taken: set[str] = set()
    for path in map(Path, paths):
        if not path.exists():
            raise DatasetError(f"{path}: no such image or folder; check the path")
        files = sorted(_inputs_below(path, output)) if path.is_dir() else [path]
        if not files:
            if path.is_dir() and _is_below(path, output):
                raise DatasetError(f"{path}: is in the output folder {output}, where nothing is read; name another one")
            suffixes = ", ".join([*IMAGE_SUFFIXES, *VIDEO_SUFFIXES])
            raise DatasetError(f"{path}: no image or video to read in it or below; looked for {suffixes}")
        for file in files:
            if file.resolve() not in seen:
                seen.add(file.resolve())
                name = file.relative_to(path) if path.is_dir() else Path(file.name)
                frames = is_video(file) or (not stills and can_read_videos() and is_animated(file))
                suffix = ".mp4" if frames else ".jpg"
                inputs.append(Input(file, output / _free_name(name.with_suffix(""), suffix, taken), frames))
    return inputs


def _inputs_below(folder: Path, output: Path) -> Iterator[Path]:
    looked: set[Path] = set()
    results: set[str] = set()  # real paths of what earlier runs wrote
    for path in files_below(folder):
        if not (is_image(path) or is_video(path)) or _is_below(path.parent, output):
            continue
        for parent in path.parents:
            if parent not in looked and parent.is_relative_to(folder):
                looked.add(parent)
                listed = OutputFolder(parent)
                results |= listed.entries() if RESULTS in listed.listed() else set()  # else of another program
        if os.path.join(os.path.realpath(path.parent), path.name) not in results:
            yield path


def _is_below(folder: Path, output: Path) -> bool:
    """Whether a folder is the output folder or in it, links followed."""
    return Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(output))


def _free_name(stem: Path, suffix: str, taken: set[str]) -> Path:
    """The stem with the suffix, or with the first number that makes it a new name; some file systems ignore case."""
    name, number = stem.with_name(f"{stem.name}{suffix}"), 1
    while str(name).lower() in taken:
        number += 1
        name = stem.with_name(f"{stem.name}-{number}{suffix}")
    taken.add(str(name).lower())
    return name
