"""COCO files as labelling tools export them: which split each is of, and where its images are."""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import methodcaller
from pathlib import Path, PurePosixPath
from typing import Any

from data.box_form import refuse_other_forms_of
from data.coco_document import keep_usable, require_lists
from data.counts import counted
from data.errors import DatasetError
from data.files import write_atomically
from data.formats.convert import claim_outputs, place, writing_to
from data.formats.foreign_paths import last_parts, slashes
from data.formats.split_folders import KINDS, SPLIT_NAMES, split_of
from data.formats.tally import inputs_below
from data.text_files import read_json

SECTIONS = ("images", "annotations", "categories")
DEPTH = 2  # of folders below one in which a folder of images is looked for: images/train


@dataclass(frozen=True)
class CocoExport:
    """An annotation file, the split that its name or folder says (None: it is all there is), its document, whose
    `file_name` are relative to `folder`, and that folder."""

    file: Path
    split: str | None
    document: dict[str, Any]
    folder: Path

    def file_names(self) -> list[Path]:
        """Of the images, each once: two entries of one image must not come to be in two splits."""
        return list(dict.fromkeys(Path(record["file_name"]) for record in self.document["images"]))

    def part(self, file_names: Iterable[Path]) -> dict[str, Any]:
        """The document with these images alone, and their annotations; everything else as it is."""
        chosen = set(file_names)
        images = [record for record in self.document["images"] if Path(record["file_name"]) in chosen]
        ids = {record["id"] for record in images}
        annotations = [record for record in self.document["annotations"] if record["image_id"] in ids]
        return {**self.document, "images": images, "annotations": annotations}


def read_exports(
    source: Path, images: Path | None = None, output: Path | None = None
) -> tuple[list[CocoExport], list[str]]:
    """The COCO files of a folder, or one alone, and lines about what was read otherwise than it was written.

    A file's name says which split it is of (`instances_train2017.json`), else the folder that it is in
    (`valid/_annotations.coco.json`).

    Args:
        images: folder of the images; None looks for it: beside the file, and in folders above and below it.
        output: folder of the new data set; what was written there is no input.
    Raises:
        DatasetError: no COCO file, several whose splits cannot be told, boxes that are not COCO's, or images not there.
    """
    notes: list[str] = []
    documents = {source: read_json(source)} if source.is_file() else _coco_files(source, output, notes)
    for file, document in documents.items():
        require_lists(document, file)
    splits = _splits(list(documents), source)
    notes += _leave_out_parents(list(documents.values()))
    exports = []
    for (file, document), split in zip(documents.items(), splits, strict=True):
        keep_usable(document, file, on_error="skip")
        refuse_other_forms_of(document, file)
        top = source if source.is_dir() else _above_annotations(file)
        folder = images or _image_folder(document["images"][0]["file_name"], file, split, top)
        notes += _use_names_in(folder, document["images"], file)
        exports.append(CocoExport(file, split, document, folder))
    return exports, notes


def write_documents(
    root: Path, parts: Mapping[str, tuple[dict[str, Any], Path]], inputs: Iterable[Path], overwrite: bool = False
) -> dict[str, Path]:
    """Writes root/annotations/instances_<split>.json of every split, and root/<split>: a link to its images' folder, or
    where splits share one, a folder of links to the images.

    Args:
        parts: split → document, folder of its images.
        inputs: files that were read.
        overwrite: replace what an earlier call wrote to `root`.
    Returns:
        Split → annotation file.
    Raises:
        DatasetError: the folder cannot be written.
        OutputError: a file is in the way; nothing is written then.
    """
    files = {split: root / "annotations" / f"instances_{split}.json" for split in parts}
    placed = {split: _places(split, document, folder, parts) for split, (document, folder) in parts.items()}
    names = [name for places in placed.values() for name in places]
    claim_outputs(root, list(files.values()), names, inputs, overwrite)
    for split, (document, _) in parts.items():
        text = json.dumps(document).encode()
        with writing_to(root):
            for name, source in placed[split].items():
                place(source, root / name, copy=False)
            write_atomically(files[split], methodcaller("write", text))
    return files


def _places(
    split: str, document: dict[str, Any], folder: Path, parts: Mapping[str, tuple[dict[str, Any], Path]]
) -> dict[str, Path]:
    """Name below the root → what it is a link to, for the images of a split."""
    real = os.path.realpath(folder)
    names = dict.fromkeys(record["file_name"] for record in document["images"])
    shared = sum(os.path.realpath(other) == real for _, other in parts.values()) > 1
    if not shared or any(".." in PurePosixPath(name).parts for name in names):  # which lead out of that folder alone
        return {split: folder}
    return {f"{split}/{name}": folder / name for name in names if not os.path.isabs(name)}


def _coco_files(folder: Path, output: Path | None, notes: list[str]) -> dict[Path, Any]:
    """The COCO files of a folder, and their contents."""
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such file or folder; check the path")
    candidates = sorted(path for path in inputs_below(folder, output) if path.suffix.lower() == ".json")
    files, damaged = {}, []
    for path in candidates:
        try:
            content = read_json(path)
        except DatasetError as error:
            damaged.append(error)
        else:
            if _is_coco(content):
                files[path] = content
    if damaged and not files:
        raise damaged[0]
    if not files:
        raise DatasetError(
            f"{folder}: no COCO file there: none of {counted(len(candidates), 'JSON file')} has the lists "
            f"{', '.join(SECTIONS)}"
        )
    if others := [path for path in candidates if path not in files]:
        notes.append(f"left out: {counted(len(others), 'JSON file')} of another kind, the first {others[0]}")
    return files


def _is_coco(content: Any) -> bool:
    return isinstance(content, dict) and all(isinstance(content.get(section), list) for section in SECTIONS)


def _splits(files: Sequence[Path], source: Path) -> list[str | None]:
    if len(files) == 1:
        return [None]
    splits = [_split_in_name(file.stem) or split_of(file, source) for file in files]
    for file, split in zip(files, splits, strict=True):
        if split is None:
            raise DatasetError(
                f"{file}: neither its name nor its folder says whether it is train, val or test, and there are "
                f"{len(files)} COCO files; rename it, or name one file alone"
            )
        if splits.count(split) > 1:
            same = [str(other) for other, its in zip(files, splits, strict=True) if its == split]
            raise DatasetError(f"{' and '.join(same)}: both are of {split}; move one away, or name one file alone")
    if "train" not in splits:
        raise DatasetError(f"{source}: has {' and '.join(map(str, splits))}, and no COCO file of train; add it")
    return splits


def _split_in_name(stem: str) -> str | None:
    """The split whose name is one of the words of a file's name, if no other's is."""
    words = re.split(r"[^a-z]+", stem.lower())
    found = [split for split, names in SPLIT_NAMES.items() if any(name in words for name in names)]
    return found[0] if len(found) == 1 else None


def _leave_out_parents(documents: Sequence[dict[str, Any]]) -> list[str]:
    """Takes out the category that stands above all others and has no object anywhere, as Roboflow writes it: it is no
    class, and often has the name of one."""
    left_out: dict[str, None] = {}
    for document in documents:
        categories = [record for record in document["categories"] if isinstance(record, dict)]
        for category in categories:
            others = [record for record in categories if record is not category]
            name = category.get("name")
            if not isinstance(name, str) or not others:
                continue
            is_parent = all(each.get("supercategory") == name for each in others)
            if is_parent and not any(_has_object(each, category.get("id")) for each in documents):
                document["categories"] = others
                left_out[name] = None
                break
    return [f"no class, but the name of all others together: category {name!r}" for name in left_out]


def _has_object(document: dict[str, Any], category_id: Any) -> bool:
    return any(isinstance(each, dict) and each.get("category_id") == category_id for each in document["annotations"])


def _above_annotations(file: Path) -> Path:
    folder = file.absolute().parent
    return folder.parent if folder.name.lower() in KINDS else folder


def _image_folder(file_name: str, file: Path, split: str | None, top: Path) -> Path:
    """The folder in which the first image is: that of the file, or else the only one near it, or the only one of the
    split."""
    if _found(file.parent, file_name):
        return file.parent
    splits = {folder: split_of(folder / "image", top) for folder in _folders(top) if _found(folder, file_name)}
    of_split = [folder for folder, its in splits.items() if split and its == split]
    # never those of another split, whose images often have the same names
    found = of_split or [folder for folder, its in splits.items() if split is None or its is None]
    if len(found) == 1:
        return found[0]
    where = f"it is in {found[0]} and in {found[1]}" if found else f"it is in no folder near {top}"
    raise DatasetError(f"{file}: where its image {file_name} is cannot be told, {where}; name the folder by --images")


def _folders(top: Path) -> Iterator[Path]:
    """The folder and those at most `DEPTH` below it, each once however many links lead to it."""
    seen = set()
    for name, below, _ in os.walk(top, followlinks=True):
        folder = Path(name)
        is_deep = len(folder.relative_to(top).parts) == DEPTH
        below[:] = [] if is_deep else sorted(each for each in below if not each.startswith("."))
        if (real := os.path.realpath(folder)) not in seen:
            seen.add(real)
            yield folder


def _use_names_in(folder: Path, records: Sequence[dict[str, Any]], file: Path) -> list[str]:
    """Makes every `file_name` one of an image in the folder; a line says of how many it was another."""
    missing: list[str] = []
    taken: dict[str, str] = {}  # name in the folder → as it was written
    moved = 0
    for record in records:
        written = record["file_name"]
        name = _found(folder, written)
        if name is None:
            missing.append(written)
            continue
        if slashes(taken.setdefault(name, written)) != slashes(written):
            raise DatasetError(
                f"{file}: {taken[name]} and {written} are not in {folder}, and {name} there would be both; put them "
                "there, or name another folder by --images"
            )
        moved += name != written
        record["file_name"] = name
    if missing:
        raise DatasetError(
            f"{file}: {len(missing)} of its {counted(len(records), 'image')} are not in {folder}, the first "
            f"{missing[0]}; put them there, remove them from the file, or name another folder by --images"
        )
    return [f"{file}: found in {folder} by the last parts of their names: {counted(moved, 'image')}"] if moved else []


def _found(folder: Path, name: str) -> str | None:
    """The name, or its last parts, by which an image is in the folder: tools write paths of another machine."""
    return next((each for each in (name, *last_parts(name)) if os.path.isfile(folder / each)), None)
