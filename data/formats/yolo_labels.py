"""YOLO label files: where that of an image is, and what its lines say."""

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from data.boxes import FRACTION_TOLERANCE
from data.errors import DatasetError
from data.text_files import read_lines

Box = tuple[float, float, float, float]


class LabelFolders:
    """The folders that label files lie in, each read once."""

    def __init__(self) -> None:
        self._names: dict[Path, dict[str, list[str]]] = {}  # folder → name in lower case → names

    def label_file_of(self, image: Path) -> Path | None:
        """…/images/a.jpg → …/labels/a.txt, where the last folder called images becomes labels; else beside the image.

        The names of the two folders and the suffix may be in any case. The label of a linked image may also be where
        the image itself lies. None where there is no such file.
        """
        for path in dict.fromkeys((image, Path(os.path.realpath(image)))):
            stem = _composed(path.stem)
            for folder in (*self._labels_folders(path), path.parent):
                names = self._names_in(folder).get(f"{stem}.txt".lower(), [])
                alike = [name for name in names if _composed(name[:-4]) == stem]
                if names := [name for name in alike if name[:-4] == path.stem] or alike:
                    return folder / max(names)  # of a.txt and a.TXT the usual one
        return None

    def _labels_folders(self, image: Path) -> Iterator[Path]:
        parts = image.parts
        for index in reversed(range(len(parts) - 1)):
            if parts[index].lower() == "images":
                for name in self._names_in(Path(*parts[:index])).get("labels", ()):
                    yield Path(*parts[:index], name, *parts[index + 1 : -1])

    def _names_in(self, folder: Path) -> dict[str, list[str]]:
        """Empty where there is no such folder."""
        if folder not in self._names:
            names = self._names[folder] = {}
            for name in os.listdir(folder) if os.path.isdir(folder) else ():
                names.setdefault(_composed(name).lower(), []).append(name)
        return self._names[folder]


def _composed(name: str) -> str:
    """With letters and their accents as one character: macOS keeps two, other systems what was typed."""
    return unicodedata.normalize("NFC", name)


def shared_labels_note(labels: Mapping[Path, Path | None]) -> str | None:
    """How many images have a label file that is another's too, as a.jpg and a.png have; None where none has.

    Args:
        labels: label file of each image.
    """
    images = defaultdict(list)
    for image, label_file in labels.items():
        if label_file is not None:
            images[label_file].append(image)
    shared = {label_file: names for label_file, names in images.items() if len(names) > 1}
    if not shared:
        return None
    label_file, (first, second, *_) = next(iter(shared.items()))
    number = sum(map(len, shared.values()))
    return f"{number} images share a label file with another, as {first.name} and {second.name} do: {label_file}"


def read_labels(path: Path, num_classes: int, values_per_pose: int | None = None) -> list[tuple[int, Box]]:
    """Label and (x1, y1, x2, y2), fractions of the image's width and height, of each line.

    A line is `class cx cy w h`, in a pose data set followed by the numbers of the keypoints, or a class and a polygon
    of at least three points, of which the enclosing box is taken.

    Args:
        values_per_pose: numbers of the keypoints of an object; None where there are none.
    Raises:
        DatasetError: a line is not of this kind, or names no class; says which.
    """
    rows = []
    for number, line in enumerate(read_lines(path), start=1):
        if line.strip():
            rows.append(_parse(line, f"{path}: line {number}", num_classes, values_per_pose))
    return rows


def _parse(line: str, where: str, num_classes: int, values_per_pose: int | None) -> tuple[int, Box]:
    try:
        label, *values = (float(word) for word in line.split())
    except ValueError:
        raise DatasetError(f"{where}: {line!r} is not a row of numbers") from None
    if values_per_pose is not None and len(values) == 4 + values_per_pose:
        values = values[:4]
    is_box = len(values) == 4
    is_polygon = len(values) >= 6 and len(values) % 2 == 0 and values_per_pose is None
    if not (is_box or is_polygon):
        pose = f", with {values_per_pose} numbers of keypoints (kpt_shape) behind it" if values_per_pose else ""
        expected = f"`class cx cy w h`{pose}" if pose else "`class cx cy w h`, or a class and a polygon"
        raise DatasetError(f"{where}: needs {expected}, and is {line!r}")
    if label not in range(num_classes):
        raise DatasetError(f"{where}: class {label:g} is none of the {num_classes} that are named")
    if not all(-FRACTION_TOLERANCE <= value <= 1 + FRACTION_TOLERANCE for value in values):
        raise DatasetError(f"{where}: {line!r} has values beyond 0..1; they must be fractions of the image's size")
    if is_polygon:
        return int(label), (min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2]))
    x, y, w, h = values
    return int(label), (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
