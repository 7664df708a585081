"""Labelled images of other formats as a data set in COCO format; `data.formats.voc` and `.yolo` read them."""

import json
import os
import random
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from data.boxes import to_xywh
from data.counts import counted
from data.errors import DatasetError
from data.exif import exif_sizes
from data.files import write_atomically
from data.output_folder import OutputFolder


@dataclass(frozen=True)
class LabelledObject:
    """Class name, (x1, y1, x2, y2) in continuous pixels, and whether it is a region to leave out of evaluation."""

    name: str
    box: tuple[float, float, float, float]
    crowd: bool = False


@dataclass(frozen=True)
class LabelledImage:
    """An image file, its name in the new data set, (height, width) that the boxes refer to, and its objects."""

    path: Path
    file_name: str
    size: tuple[int, int]
    objects: list[LabelledObject]


@dataclass(frozen=True)
class SplitReport:
    """Counts of what was written of one split; `dropped` names boxes without area in their image."""

    annotation_file: Path
    images: int
    objects: int
    crowds: int
    dropped: list[str]


def write_splits(
    root: Path,
    splits: Mapping[str, Sequence[LabelledImage]],
    class_names: Sequence[str],
    copy: bool,
    overwrite: bool = False,
) -> dict[str, SplitReport]:
    """Writes root/<split>/ and root/annotations/instances_<split>.json of every split, annotations last.

    Boxes are cut off at the border of their image, and those without area there are left out. The image files stay
    where they are: the new folder has symbolic links to them, or copies.

    Args:
        class_names: in the order of the category ids, from 1.
        overwrite: replace what an earlier conversion wrote to `root`, and remove the rest of it.
    Raises:
        DatasetError: no object, one of another class, two images of one name, a folder that cannot be written.
        OutputError: a file is in the way: one of another origin, an image that is converted, or without `overwrite`
            any; nothing is written then.
    """
    if not any(image.objects for images in splits.values() for image in images):
        count = sum(map(len, splits.values()))
        raise DatasetError(
            f"not one of {count} images has a labelled object; see in docs/custom-data.md where labels are looked for"
        )
    _refuse_other_classes(splits, class_names)
    files = {split: root / "annotations" / f"instances_{split}.json" for split in splits}
    names = [name for split, images in splits.items() for name in _image_names(split, images)]
    inputs = [image.path for images in splits.values() for image in images]
    claim_outputs(root, list(files.values()), names, inputs, overwrite)
    return {split: _write_split(root, split, files[split], splits[split], class_names, copy) for split in splits}


def claim_outputs(
    root: Path, annotation_files: Sequence[Path], names: Sequence[str], inputs: Iterable[Path], overwrite: bool
) -> None:
    """Makes room in `root` for these annotation files and these names of images or folders of images; what an earlier
    conversion wrote there is removed.

    Args:
        inputs: files that are read.
        overwrite: whether there may be an earlier conversion.
    Raises:
        DatasetError: the folder cannot be written.
        OutputError: a file is in the way; nothing is changed then.
    """
    names = [*(file.relative_to(root).as_posix() for file in annotation_files), *names]
    inputs = list(inputs)
    folder = OutputFolder(root)
    earlier = [name for name in sorted(folder.listed().difference(names)) if os.path.lexists(root / name)]
    # annotations first: none may be there that tells of images which are gone or replaced
    earlier.sort(key=lambda name: not name.startswith("annotations/"))
    with writing_to(root):
        folder.check([*names, *earlier], inputs, replace=overwrite)
        folder.claim(names, inputs, replace=overwrite)
        folder.discard([*names[: len(annotation_files)], *earlier])


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Raises DatasetError where the folder cannot be written."""
    try:
        yield
    except OSError as error:
        raise DatasetError(f"{folder}: cannot write there ({error}); make room or change --output") from error


def split_at_random(paths: Sequence[Path], shares: Mapping[str, float], seed: int) -> dict[str, list[Path]]:
    """Distributes paths over splits: the same for the same names and seed, wherever the folder is.

    Args:
        shares: split → share of the images, 0 for none; the rest goes to "train".
    Raises:
        DatasetError: a share that is not in 0..1, or a split without an image.
    """
    if any(not 0 <= share < 1 for share in shares.values()) or sum(shares.values()) >= 1:
        raise DatasetError(f"shares {dict(shares)}: each must be from 0 to 1, and something must remain for train")
    rest = sorted(paths)
    random.Random(seed).shuffle(rest)
    total, splits = len(rest), {}
    for split, share in shares.items():
        count = round(share * total)
        if share and (not count or count >= len(rest)):
            are, other = "is" if total == 1 else "are", "smaller" if count else "larger"
            raise DatasetError(
                f"{counted(total, 'image')} {are} too few for a share of {share:g} for {split}; take --{split} 0, or a "
                f"{other} share"
            )
        if count:
            splits[split], rest = sorted(rest[:count]), rest[count:]
    return {"train": sorted(rest), **splits}


def image_sizes(path: Path) -> tuple[tuple[int, int], tuple[int, int]]:
    """(height, width) of an image file as its pixels are stored, and as a viewer that heeds its EXIF tag shows it.

    Raises DatasetError where it cannot be read.
    """
    try:
        with Image.open(path) as image:
            sizes = exif_sizes(image)
    except Exception as error:  # Pillow's decoders raise nearly anything on broken files
        raise DatasetError(f"{path}: unreadable image ({error}); mend it or remove it with its labels") from error
    return sizes.stored, sizes.shown


def _refuse_other_classes(splits: Mapping[str, Sequence[LabelledImage]], class_names: Sequence[str]) -> None:
    known = set(class_names)
    for images in splits.values():
        for image in images:
            if unknown := [item.name for item in image.objects if item.name not in known]:
                raise DatasetError(
                    f"{image.path}: has an object of class {unknown[0]!r}, which is none of {', '.join(class_names)}; "
                    "mend the label, or add the class"
                )


def _write_split(
    root: Path, split: str, file: Path, images: Sequence[LabelledImage], class_names: Sequence[str], copy: bool
) -> SplitReport:
    category_ids = {name: index for index, name in enumerate(class_names, start=1)}
    records: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    dropped: list[str] = []
    for image_id, image in enumerate(images, start=1):
        height, width = image.size
        records.append({"id": image_id, "file_name": image.file_name, "height": height, "width": width})
        for item in image.objects:
            x1, x2 = (min(max(x, 0.0), width) for x in item.box[::2])
            y1, y2 = (min(max(y, 0.0), height) for y in item.box[1::2])
            if not (x2 > x1 and y2 > y1):
                dropped.append(f"{image.file_name} ({item.name})")
                continue
            annotations.append(
                {
                    "id": len(annotations) + 1,  # COCOeval reads an annotation id of 0 as "unmatched"
                    "image_id": image_id,
                    "category_id": category_ids[item.name],
                    "bbox": [*to_xywh(x1, y1, x2, y2)],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": int(item.crowd),
                }
            )
        with writing_to(root / split):
            place(image.path, root / split / image.file_name, copy)
    categories = [{"id": category_id, "name": name} for name, category_id in category_ids.items()]
    document = {"images": records, "annotations": annotations, "categories": categories}
    write_atomically(file, lambda target: target.write(json.dumps(document).encode()))
    crowds = sum(annotation["iscrowd"] for annotation in annotations)
    return SplitReport(file, len(records), len(annotations) - crowds, crowds, dropped)


def _image_names(split: str, images: Sequence[LabelledImage]) -> list[str]:
    """Folder of the images, below the root. Raises DatasetError where two have one name."""
    taken: dict[str, Path] = {}
    for image in images:
        if taken.setdefault(image.file_name, image.path) != image.path:
            raise DatasetError(f"{image.path}: has the name of {taken[image.file_name]}; rename one of them")
    return [f"{split}/{image.file_name}" for image in images]


def place(source: Path, target: Path, copy: bool) -> None:
    """A copy of a file, or a link to a file or folder, at `target`, by another name first: nothing half-written keeps
    that name."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{os.getpid()}.tmp")  # names may be as long as the system allows
    temporary.unlink(missing_ok=True)
    try:
        if copy:
            shutil.copyfile(source, temporary)
        else:
            temporary.symlink_to(source.resolve())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
