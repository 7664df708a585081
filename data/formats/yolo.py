"""YOLO data sets: class names and splits of a folder; `data.formats.yolo_labels` reads the labels."""

import os
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path, PurePath

from data.counts import counted
from data.errors import DatasetError
from data.exif import Exif
from data.formats.convert import LabelledImage, LabelledObject, image_sizes
from data.formats.foreign_paths import last_parts, slashes
from data.formats.split_folders import split_by_folders
from data.formats.tally import FileTally, inputs_below, unique_files
from data.formats.yolo_description import read_description
from data.formats.yolo_labels import LabelFolders, read_labels, shared_labels_note
from data.image_files import IMAGE_SUFFIXES, is_image
from data.text_files import read_lines


class YoloFolder:
    """A folder with data.yaml (`names`, and `train`, `val`, `test`: folders or lists of images), with classes.txt, or
    with the obj.names and obj.data of Darknet.

    The labels of images/a.jpg are in labels/a.txt, or beside the image. An image without such a file has no objects.
    Files are found in folders of any depth, and through links to folders. Hidden files are passed over.

    Args:
        output: folder of the converted data; what was written there is no input.
        exif: "turn" where labels were drawn on images as viewers show them, "ignore" where on their stored pixels; a
            size in the labels says so itself.
    Attributes:
        class_names: in the order of the labels.
        tally: what became of the files, after all that is wanted was read.
    Raises:
        DatasetError: no class names there, or the description cannot be used.
    """

    def __init__(self, root: Path, output: Path | None = None, exif: Exif = "turn") -> None:
        if not root.is_dir():
            raise DatasetError(f"{root}: no such folder; check the path")
        self.root, self._output, self._exif, self.tally = root, output, exif, FileTally()
        self._files = inputs_below(root, output)
        self.tally.see(self._files)
        self._label_folders = LabelFolders()
        self._description = read_description(root, self.tally)
        self.class_names = self._description.class_names
        self._read_for: dict[Path, tuple[str, bool]] = {}  # what is read → the source, and whether it is there
        self._bases: dict[str, Path] = {}  # split → the folder that names of its images are relative to

    def image_sets(self) -> dict[str, list[Path]]:
        """Split → images, as the description names them; where it names none, as the folders are named
        (`split_by_folders`), and empty where they are not. Raises DatasetError."""
        splits = {}
        for split, sources in self._description.sources.items():
            found = [self._images_of(source, split) for source in sources]
            self._bases[split] = _common_folder(base for _, base in found)
            images = [image for images, _ in found for image in images]
            splits[split] = unique_files(images)
            if len(splits[split]) < len(images):
                twice = len(images) - len(splits[split])
                self.tally.notes.append(f"{split}: listed twice, and counted once: {counted(twice, 'image')}")
        if not splits:
            splits = split_by_folders(self._images(), self.root, self.tally)
        return splits

    def all_images(self) -> list[Path]:
        """Every image of the folder, for a random split. Raises DatasetError where there is none."""
        if not (images := self._images()):
            raise DatasetError(f"{self.root}: no images there ({', '.join(IMAGE_SUFFIXES)})")
        return unique_files(images)

    def _images(self) -> list[Path]:
        """The images to be trained on: those in images/ where it is there, and none in labels/, where masks may lie."""
        folders = {
            path: list(map(str.lower, path.relative_to(self.root).parts[:-1])) for path in self._files if is_image(path)
        }
        others = [path for path in folders if "labels" not in folders[path]] or list(folders)
        return sorted([path for path in others if folders[path][:1] == ["images"]] or others)

    def read(self, images: Sequence[Path], split: str | None = None) -> list[LabelledImage]:
        """The labelled images of some of the image files, of a split where `image_sets` gave them.

        Raises:
            DatasetError: an image or its label file cannot be used.
        """
        base = self._bases.get(split) if split else None
        base = base or _common_folder(path.parent for path in images)
        labels = {path: self._label_folders.label_file_of(path) for path in images}
        if note := shared_labels_note(labels):
            self.tally.notes.append(f"{split}: {note}" if split else note)
        return [self._read_one(path, labels[path], base) for path in images]

    def reason_left_out(self, path: Path) -> tuple[str, str]:
        """What a file that was not used is, and why it was not."""
        if is_image(path):
            return "image", "in no split"
        if path.suffix.lower() != ".txt":
            return "file", "of another kind"
        has_image = os.path.realpath(path) in self._label_files
        return "text file", "whose image is in no split" if has_image else "of no image"

    @cached_property
    def _label_files(self) -> set[str]:
        """Real paths of the label files of all images."""
        found = map(self._label_folders.label_file_of, filter(is_image, self._files))
        return {os.path.realpath(path) for path in found if path is not None}

    def _images_of(self, source: str, split: str) -> tuple[list[Path], Path]:
        """The images of a folder, or of a list, and the folder that they are in."""
        base = self._description.base
        bases = [self.root] if base is None else [self.root / base, self.root]
        where = f"{self._description.path}: {split}"
        is_there = (path := _as_written(source, bases)) is not None
        if path is None and (path := self._by_last_parts(source)) is None:
            raise DatasetError(f"{where}: {source}: no such folder or list of images; put it there, or remove the key")
        other, other_is_there = self._read_for.setdefault(path, (source, is_there))
        if other != source and not (is_there and other_is_there):
            missing = [text for text, there in ((other, other_is_there), (source, is_there)) if not there]
            are = "is" if len(missing) == 1 else "are"
            raise DatasetError(
                f"{where}: {' and '.join(missing)} {are} not there, and {path} would be read for {other} and {source} "
                "alike; put it there, or remove the keys for splits at random"
            )
        if not is_there:
            self.tally.notes.append(f"{where}: {source} is not there; {path} is read in its place")
        if path.is_dir():
            return self._images_in(path, where), path
        if is_image(path):
            return [path], path.parent
        images = self._listed(path, [path.parent, *bases])
        return images, _common_folder(image.parent for image in images)

    def _listed(self, listing: Path, bases: Sequence[Path]) -> list[Path]:
        lines = [line.strip() for line in read_lines(listing) if line.strip()]
        self.tally.use(listing)
        images, moved = [], {}
        for line in lines:
            if (image := _as_written(line, bases)) is None:
                if (image := self._by_last_parts(line)) is None:
                    raise DatasetError(f"{listing}: lists {line}, and there is no such image; remove it from the list")
                moved[line] = image
            images.append(image)
        if not images:
            raise DatasetError(f"{listing}: lists no image; put names there, or remove the list and what names it")
        if moved:
            line, image = next(iter(moved.items()))
            self.tally.notes.append(
                f"{listing}: not where it says, and found elsewhere: {counted(len(moved), 'image')}, the first {line}; "
                f"{image} is read in its place"
            )
        return images

    def _images_in(self, folder: Path, where: str) -> list[Path]:
        files = inputs_below(folder, self._output)
        images = sorted(path for path in files if is_image(path))
        if not images:
            raise DatasetError(
                f"{where}: no images in {folder} (looked for {', '.join(IMAGE_SUFFIXES)}); put them there, or remove "
                "the key"
            )
        self.tally.see(files)
        return images

    def _by_last_parts(self, text: str) -> Path | None:
        """Where the last parts of a path of the description are below the root."""
        # exporting tools write paths of another machine, or relative to a folder that no longer exists
        candidates = (self.root / parts for parts in last_parts(text))
        return next((path for path in candidates if os.path.exists(path)), None)

    def _read_one(self, path: Path, label_file: Path | None, base: Path) -> LabelledImage:
        stored, shown = image_sizes(path)
        height, width = shown if self._exif == "turn" else stored
        self.tally.use(path)
        objects = []
        if label_file is not None:
            self.tally.use(label_file)
            rows = read_labels(label_file, len(self.class_names), self._description.values_per_pose)
            for label, (x1, y1, x2, y2) in rows:
                box = (x1 * width, y1 * height, x2 * width, y2 * height)
                objects.append(LabelledObject(self.class_names[label], box))
        name = PurePath(os.path.relpath(path, base)).as_posix()
        return LabelledImage(path, name, (height, width), objects)


def _common_folder(folders: Iterable[Path]) -> Path:
    return Path(os.path.commonpath(list(map(os.path.abspath, folders))))


def _as_written(text: str, bases: Sequence[Path]) -> Path | None:
    """A path of the description, relative to one of the bases, written as here or as on Windows."""
    for spelling in dict.fromkeys((text, slashes(text))):
        for base in bases:
            if os.path.exists(base / spelling):
                path = base / spelling
                normal = Path(os.path.normpath(path))  # but a/../b behind a link to a folder is another one
                return normal if os.path.exists(normal) and normal.samefile(path) else path
    return None
