"""Folders whose names say which split their files are of, as exporting tools write them."""

from collections.abc import Iterable
from pathlib import Path

from data.formats.tally import FileTally, unique_files

# and what they are called
SPLIT_NAMES = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
KINDS = ("images", "labels", "jpegimages", "annotations")  # folders that tell kinds of files apart, and nothing else


def split_by_folders(paths: Iterable[Path], root: Path, tally: FileTally) -> dict[str, list[Path]]:
    """Split → the files in train/images/, images/val/, Annotations/test/ and the like; those in no such folder are in
    no split.

    The first folder below the root that is none of `KINDS` decides. Names may be in any case.

    Args:
        tally: gets a note where there are splits.
    Returns:
        Empty, unless there are training files and those of another split.
    """
    splits: dict[str, list[Path]] = {split: [] for split in SPLIT_NAMES}
    for path in paths:
        if (split := split_of(path, root)) is not None:
            splits[split].append(path)
    found = {split: unique_files(files) for split, files in splits.items() if files}
    if "train" not in found or len(found) == 1:
        return {}
    tally.notes.append(f"{root}: the splits are those of the folders, as nothing else names any: {', '.join(found)}")
    return found


def split_of(path: Path, root: Path) -> str | None:
    """The split whose name the first folder below the root has that is none of `KINDS`; None if it has none's."""
    folders = (part.lower() for part in path.relative_to(root).parts[:-1])
    decisive = next((folder for folder in folders if folder not in KINDS), None)
    return next((split for split, names in SPLIT_NAMES.items() if decisive in names), None)
