"""YOLO text labels: a line `class cx cy w h` per object, fractions of the image's width and height."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from data.errors import DatasetError
from data.formats.convert import LabelledImage, LabelledObject, find_images, image_sizes

SPLITS = ("train", "val", "test")
TOLERANCE = 0.01  # fractions beyond 0..1 by more are not fractions


class YoloFolder:
    """A folder with data.yaml (`names`, and `train`, `val`, `test`: folders or lists of images), or with classes.txt.

    The labels of images/a.jpg are in labels/a.txt, or beside the image. An image without such a file has no objects.

    Raises:
        DatasetError: no class names there.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._document: dict[str, Any] = {}
        yaml_file, text_file = root / "data.yaml", root / "classes.txt"
        if yaml_file.is_file():
            self.class_names = self._read_yaml(yaml_file)
        elif text_file.is_file():
            self.class_names = [line.strip() for line in text_file.read_text().splitlines() if line.strip()]
        else:
            raise DatasetError(f"{root}: has neither data.yaml nor classes.txt, which name the classes")
        if not self.class_names or len(set(self.class_names)) < len(self.class_names):
            raise DatasetError(f"{root}: needs class names that all differ, and has {self.class_names}")

    def _read_yaml(self, path: Path) -> list[str]:
        try:
            document = yaml.safe_load(path.read_text())
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise DatasetError(f"{path}: not valid YAML") from error
        names = document.get("names") if isinstance(document, dict) else None
        if isinstance(names, dict) and sorted(names) == list(range(len(names))):
            names = [names[index] for index in range(len(names))]
        if not isinstance(names, list):
            raise DatasetError(f"{path}: names: needs a list of class names, or a mapping of 0, 1, … to them")
        self._document = document
        return [str(name) for name in names]

    def image_sets(self) -> dict[str, list[Path]]:
        """Split → images, as data.yaml names them; empty without data.yaml. Raises DatasetError."""
        base = self.root / str(self._document.get("path") or "")
        splits = {}
        for split in SPLITS:
            sources = self._document.get(split)
            if sources:
                sources = sources if isinstance(sources, list) else [sources]
                splits[split] = [image for source in sources for image in self._images_of(base, str(source))]
        return splits

    def _images_of(self, base: Path, source: str) -> list[Path]:
        # exporting tools write paths relative to a folder that no longer exists: the last parts still hold
        trimmed = source.removeprefix("../").removeprefix("./")
        for path in (base / source, self.root / source, self.root / trimmed):
            if path.is_dir():
                return find_images(path)
            if path.is_file():
                lines = [line.strip() for line in path.read_text().splitlines() if line.strip()]
                return [path.parent / line for line in lines]
        raise DatasetError(f"{self.root / 'data.yaml'}: {source}: no such folder or list of images in {self.root}")

    def all_images(self) -> list[Path]:
        """Every image of the folder, for a random split."""
        return find_images(self.root / "images" if (self.root / "images").is_dir() else self.root)

    def read(self, images: Sequence[Path]) -> list[LabelledImage]:
        """The labelled images of some of the image files. Raises DatasetError."""
        return [self._read_one(path) for path in images]

    def _read_one(self, path: Path) -> LabelledImage:
        _, (height, width) = image_sizes(path)  # such labels are drawn on the image as viewers show it
        objects = []
        label_file = label_file_of(path)
        lines = label_file.read_text().splitlines() if label_file.is_file() else []
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            label, (x1, y1, x2, y2) = self._parse(line, f"{label_file}: line {number}")
            objects.append(LabelledObject(self.class_names[label], (x1 * width, y1 * height, x2 * width, y2 * height)))
        return LabelledImage(path, path.name, (height, width), objects)

    def _parse(self, line: str, where: str) -> tuple[int, tuple[float, float, float, float]]:
        """Label and (x1, y1, x2, y2) in fractions, of a box or around a polygon."""
        try:
            label, *values = (float(word) for word in line.split())
        except ValueError:
            raise DatasetError(f"{where}: {line!r} is not a row of numbers") from None
        is_box, is_polygon = len(values) == 4, len(values) >= 6 and len(values) % 2 == 0
        if not (is_box or is_polygon):
            raise DatasetError(f"{where}: needs `class cx cy w h`, or a class and a polygon, and is {line!r}")
        if label not in range(len(self.class_names)):
            raise DatasetError(f"{where}: class {label:g} is none of the {len(self.class_names)} in {self.root}")
        if not all(-TOLERANCE <= value <= 1 + TOLERANCE for value in values):
            raise DatasetError(f"{where}: {line!r} has values beyond 0..1; they must be fractions of the image's size")
        if is_polygon:
            return int(label), (min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2]))
        x, y, w, h = values
        return int(label), (x - w / 2, y - h / 2, x + w / 2, y + h / 2)


def label_file_of(image: Path) -> Path:
    """…/images/a.jpg → …/labels/a.txt, where the last folder called images becomes labels; else beside the image."""
    parts = list(image.parts)
    for index in reversed(range(len(parts) - 1)):
        if parts[index] == "images":
            candidate = Path(*parts[:index], "labels", *parts[index + 1 :]).with_suffix(".txt")
            return candidate if candidate.is_file() else image.with_suffix(".txt")
    return image.with_suffix(".txt")
