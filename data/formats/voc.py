"""Pascal VOC annotations: an XML file per image, corners as 1-based pixel indices."""

import os
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from data.errors import DatasetError
from data.exif import Exif
from data.formats.convert import LabelledImage, image_sizes
from data.formats.file_index import FileIndex, name_below
from data.formats.split_folders import KINDS, split_by_folders, split_of
from data.formats.tally import FileTally, inputs_below, unique_files
from data.formats.voc_xml import Corners, Difficult, parse_xml, read_objects, read_size
from data.image_files import IMAGE_SUFFIXES, files_below, is_image
from data.text_files import read_lines

SPLITS = ("train", "val", "test")


class VocFolder:
    """Annotations/, JPEGImages/ and ImageSets/Main/*.txt; or XML files and images side by side in one folder.

    Files are found in folders of any depth, and through links to folders. Hidden files are passed over.

    Args:
        output: folder of the converted data; what was written there is no input.
        exif: "turn" where labels were drawn on images as viewers show them, "ignore" where on their stored pixels; a
            size in the labels says so itself.
    Attributes:
        tally: what became of the files, after all that is wanted was read.
        of_folders: whether the splits of `image_sets` are those of folders.
    Raises:
        DatasetError: no XML file there, or lists of splits in a folder below alone.
    """

    def __init__(self, root: Path, output: Path | None = None, exif: Exif = "turn") -> None:
        self.root, self._exif, self.tally = root, exif, FileTally()
        self.annotations = _folder_in(root, "annotations")
        self.images = _folder_in(root, "jpegimages")
        folders = dict.fromkeys((self.images, self.annotations))  # often one
        found = [path for folder in folders for path in inputs_below(folder, output)]
        _refuse_lists_below(root, found)
        self.xml_files = sorted(path for path in unique_files(found) if _is_xml(path))
        if not self.xml_files:
            raise DatasetError(f"{self.annotations}: no .xml files; name the folder that holds Annotations/")
        self._xml_folders = {path.parent for path in self.xml_files}
        self.tally.see(found)
        self._xml_index = FileIndex(self.xml_files, self.annotations)
        self._image_index = FileIndex(unique_files(filter(is_image, found)), self.images)
        self._lists = _image_lists(root)
        self.of_folders = False
        self._foreign: set[Path] = set()
        self._annotation_of: dict[str, Path] = {}  # by the real path of the image
        self.tally.see(self._lists.values())

    def image_sets(self) -> dict[str, list[Path]]:
        """Split → XML files, as ImageSets/Main/{train,val,test}.txt list them; without such files as the
        folders are named (`split_by_folders`), and empty where they are not.

        A list that is empty is passed over, and a note says so.
        trainval.txt stands for the one of train.txt and val.txt that is not there, less the other; for train.txt
        where there is neither.

        Raises:
            DatasetError: a name in a list has no XML file.
        """
        listed = {split: self._listed(split) for split in SPLITS if split in self._lists}
        splits = {split: files for split, files in listed.items() if files}
        missing = [split for split in ("train", "val") if split not in splits]
        if "trainval" in self._lists and missing:
            other = set(splits.get("val" if missing[0] == "train" else "train", ()))
            if rest := [path for path in self._listed("trainval") if path not in other]:
                splits = {missing[0]: rest, **splits}
                why = "lists nothing" if missing[0] in self._lists else "is not there"
                self.tally.notes.append(f"{self._lists['trainval']}: taken for {missing[0]}.txt, which {why}")
        if not splits:
            splits = split_by_folders(self.xml_files, self.root, self.tally)
            self.of_folders = bool(splits)
        return splits

    def read(self, xml_files: Sequence[Path], difficult: Difficult, corners: Corners = "pixels") -> list[LabelledImage]:
        """The labelled images of some of the XML files, of those that are annotations.

        Args:
            difficult: what becomes of objects marked so: "crowd" regions, objects like any other ("keep"), or nothing.
            corners: what numbers of a bndbox are. "pixels": indices from 1, both corners included, as the format says;
                "edges": coordinates as they stand.
        Raises:
            DatasetError: an XML file or its image cannot be used.
        """
        images = (self._read_one(path, difficult, corners) for path in xml_files)
        return [image for image in images if image is not None]

    def reason_left_out(self, path: Path) -> tuple[str, str]:
        """What a file that was not used is, and why it was not."""
        if _is_xml(path):
            in_no_split = f"in no {'folder' if self.of_folders else 'list'} of a split"
            return "XML file", "without an annotation" if path in self._foreign else in_no_split
        if is_image(path):
            named = self._xml_index.named(name_below(path, self.images))
            alone = [xml_file for xml_file in self._xml_index.alone(path.stem) if self._go_together(xml_file, path)]
            return "image", "whose XML file is not used" if named or alone else "without an XML file"
        return ("list", "of no split") if path in self._lists.values() else ("file", "of another kind")

    def _listed(self, split: str) -> list[Path]:
        listing = self._lists[split]
        lines = [line.strip() for line in read_lines(listing) if line.strip()]
        paths = [self._xml_of(line, listing) for line in lines]
        self.tally.use(listing)
        if not lines:
            self.tally.notes.append(f"{listing}: lists nothing, and is passed over")
        unique = list(dict.fromkeys(paths))
        if len(unique) < len(paths):
            self.tally.notes.append(f"{listing}: lists {len(paths) - len(unique)} names twice; each counts once")
        return unique

    def _xml_of(self, line: str, listing: Path) -> Path:
        """The XML file that a line names: with spaces, with a folder or a suffix, and followed by -1, 0 or 1."""
        without_flag = re.sub(r"\s+-?[01]$", "", line)
        for name in (line, without_flag):
            name = name.replace("\\", "/")
            stem = _without_suffix(name) if name.lower().endswith((*IMAGE_SUFFIXES, ".xml")) else name
            for key in (name, stem):
                found = self._xml_index.named(key) or self._of_last_part(PurePosixPath(key))
                if len(found) == 1:
                    return found[0]
        expected = self.annotations / f"{without_flag}.xml"
        raise DatasetError(f"{listing}: lists {without_flag}, and there is no {expected}; remove it from the list")

    def _of_last_part(self, key: PurePosixPath) -> list[Path]:
        """The XML files with the last part of a line's name, if the line's folders may be theirs."""
        found = self._xml_index.alone(key.name)
        folders = key.parent.parts
        if not folders or not found or _is_tail(self._folders(found[0]), folders):
            return found
        images = self._image_index.named(str(key))
        return found if images and self._go_together(found[0], images[0]) else []

    def _read_one(self, path: Path, difficult: Difficult, corners: Corners) -> LabelledImage | None:
        tree = parse_xml(path)
        if tree.tag != "annotation":
            self._foreign.add(path)
            return None
        image_path = self._find_image(path, (tree.findtext("filename") or "").strip())
        if (other := self._annotation_of.setdefault(os.path.realpath(image_path), path)) != path:
            raise DatasetError(
                f"{path}: its image, {image_path}, is that of {other} too; remove one of the two, or give each its own"
            )
        self.tally.use(path, image_path)
        base = self.images if image_path.is_relative_to(self.images) else self.root
        file_name = image_path.relative_to(base).as_posix()
        objects = read_objects(path, tree, difficult, corners)
        return LabelledImage(image_path, file_name, self._size(path, tree, image_path), objects)

    def _find_image(self, xml_file: Path, file_name: str) -> Path:
        # by the XML file's own name first: <filename> is often that of another machine or an earlier name
        named = file_name.replace("\\", "/")
        own = name_below(xml_file, self.annotations)
        for key in (str(xml_file.with_suffix("")), own, _without_suffix(named)):
            stem = PurePosixPath(key).name
            found = (
                self._image_index.named(key)
                or self._image_index.alone(stem, lambda path: self._folders(path) == self._folders(xml_file))
                or [path for path in self._image_index.alone(stem) if self._go_together(xml_file, path)]
            )
            if found:
                exact = [path for path in found if path.name == PurePosixPath(named).name]
                # of several formats, the one that comes first in our list
                return min(exact or found, key=lambda path: IMAGE_SUFFIXES.index(path.suffix.lower()))
        raise DatasetError(f"{xml_file}: no image {own}.* in {self.images}; put it there or remove the file")

    def _go_together(self, xml_file: Path, image: Path) -> bool:
        """Whether files that have but their names in common may be of one image, by the folders that they are in."""
        if self.annotations == self.images:
            splits = {split_of(path, self.root) for path in (xml_file, image)}
            # side by side with other XML files, it is an image of theirs
            return image.parent not in self._xml_folders - {xml_file.parent} and (len(splits) == 1 or None in splits)
        ours, theirs = self._folders(xml_file), self._folders(image)
        return _is_tail(ours, theirs) or _is_tail(theirs, ours)

    def _folders(self, path: Path) -> tuple[str, ...]:
        """The folders that a file is in, below Annotations/ or JPEGImages/."""
        return tuple(part for part in path.relative_to(self.root).parts[:-1] if part.lower() not in KINDS)

    def _size(self, path: Path, tree: ElementTree.Element, image_path: Path) -> tuple[int, int]:
        """That which the annotation says, of the image as a viewer shows it and as it is stored."""
        stored, shown = image_sizes(image_path)
        if (size := read_size(path, tree)) is None:
            return shown if self._exif == "turn" else stored
        if size in (shown, stored):
            return size
        height, width = size
        raise DatasetError(
            f"{path}: says that the image is {width}×{height}, and {image_path.name} is {shown[1]}×{shown[0]}; "
            "put the right image there, or mend <size> if the boxes fit"
        )


def _is_xml(path: Path) -> bool:
    return path.suffix.lower() == ".xml"


def _folder_in(root: Path, name: str) -> Path:
    """The folder of this name in the root, in whatever case; the root itself where there is none."""
    if not root.is_dir():
        raise DatasetError(f"{root}: no such folder; check the path")
    return next((path for path in sorted(root.iterdir()) if path.name.lower() == name and path.is_dir()), root)


def _image_lists(root: Path) -> dict[str, Path]:
    """Name in lower case → list, of those in ImageSets/Main/ or, without it, ImageSets/."""
    image_sets = _folder_in(root, "imagesets")
    if image_sets == root:
        return {}
    folder = _folder_in(image_sets, "main")
    found = [path for path in files_below(folder) if path.suffix.lower() == ".txt"]
    own = [path for path in found if path.parent == folder]
    # those in folders below count only where there is no list of a split above them
    has_own = any(path.stem.lower() in (*SPLITS, "trainval") for path in own)
    lists: dict[str, Path] = {}
    for path in own if has_own else found:
        lists.setdefault(path.stem.lower(), path)
    return lists


def _refuse_lists_below(root: Path, found: Sequence[Path]) -> None:
    """Raises DatasetError where ImageSets/ is in folders below the root and not in the root: splits would be drawn."""
    if _folder_in(root, "imagesets") != root:
        return
    folders = {folder for parent in {path.parent for path in found} for folder in (parent, *parent.parents)}
    below = (folder for folder in folders if folder.is_relative_to(root) and folder != root)
    holders = sorted(str(folder.parent) for folder in below if folder.name.lower() == "imagesets")
    if holders:
        raise DatasetError(
            f"{root}: has no ImageSets/ of its own, as these have: {', '.join(holders)}; name the folder that "
            "holds ImageSets/"
        )


def _is_tail(tail: tuple[str, ...], parts: tuple[str, ...]) -> bool:
    return parts[max(len(parts) - len(tail), 0) :] == tail


def _without_suffix(name: str) -> str:
    return name.removesuffix(PurePosixPath(name).suffix)
