"""What a YOLO folder says of itself: class names, where the splits are, and numbers of keypoints."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.errors import DatasetError
from data.formats.split_folders import SPLIT_NAMES
from data.formats.tally import FileTally
from data.image_files import is_image
from data.text_files import read_lines
from data.yaml_files import read_yaml

NULL = ("", "~", "null", "Null", "NULL")  # of YAML, which is read as text here


@dataclass(frozen=True)
class Description:
    """What data.yaml says, or classes.txt with lists, or the files of Darknet.

    Attributes:
        path: the file that names the classes.
        class_names: in the order of the labels.
        sources: split → folders, lists of images and images, as they are written.
        base: the folder that these are relative to, as it is written; None where nothing is.
        values_per_pose: numbers of the keypoints of an object; None where there are none.
    """

    path: Path
    class_names: list[str]
    sources: dict[str, list[str]]
    base: str | None
    values_per_pose: int | None


def read_description(root: Path, tally: FileTally) -> Description:
    """The description at the top of a folder: data.yaml, else the only YAML file, if it has `names` or nothing else
    has, else classes.txt or Darknet's obj.names.

    Args:
        tally: is told of the files that are read, and of class names beside them that are others.
    Raises:
        DatasetError: no class names there, or the description cannot be used.
    """
    top = sorted(path for path in root.iterdir() if path.is_file() and not path.name.startswith("."))
    class_lists = [path for path in top if path.name.lower() in ("classes.txt", "obj.names")]
    class_lists += [path for path in top if path.suffix.lower() == ".names" and path not in class_lists]
    if (read := _yaml_description(top, class_lists, tally)) is not None:
        path, document = read
        names = _names_of(path, document)
    elif class_lists:
        path, document = class_lists[0], _splits_of_lists(top, tally)
        names = _class_list(path)
    else:
        raise DatasetError(f"{root}: has none of data.yaml, classes.txt and obj.names, which name the classes")
    if not names or len(set(names)) < len(names):
        raise DatasetError(f"{path}: needs class names that all differ, and has {names}")
    tally.use(path)
    tally.notes += [note for other in class_lists if other != path and (note := _difference(other, path, names))]
    base = document.get("path")
    return Description(
        path,
        names,
        _sources(document),
        base if isinstance(base, str) and base not in NULL else None,
        _values_per_pose(path, document),
    )


def _yaml_description(top: Sequence[Path], class_lists: Sequence[Path], tally: FileTally) -> tuple[Path, Any] | None:
    """The YAML file that describes the folder, and its content; None where there is none."""
    yaml_files = [path for path in top if path.suffix.lower() in (".yaml", ".yml")]
    usual = [path for path in yaml_files if path.stem.lower() == "data"]
    if usual or (len(yaml_files) == 1 and not class_lists):
        path = (usual or yaml_files)[0]
        return path, read_yaml(path, values_as_text=True)
    if len(yaml_files) == 1:  # beside a class list it may be of anything
        try:
            document = read_yaml(yaml_files[0], values_as_text=True)
            if isinstance(document, dict) and "names" in document and _names_of(yaml_files[0], document):
                return yaml_files[0], document
        except DatasetError as error:
            tally.notes.append(f"{error}; the names of {class_lists[0]} are taken")
    return None


def _class_list(path: Path) -> list[str]:
    """The names in a file, one a line. Raises DatasetError: a line before the last name is blank."""
    names = [line.strip() for line in read_lines(path)]
    while names and not names[-1]:
        names.pop()
    if "" in names:
        raise DatasetError(
            f"{path}: line {names.index('') + 1} is blank, and numbers of classes are numbers of lines; remove it, or "
            "write the name that belongs there"
        )
    return names


def _difference(class_list: Path, description: Path, names: list[str]) -> str | None:
    """A note where a class list beside the description does not say the same."""
    try:
        problem = "" if _class_list(class_list) == names else f"{class_list}: has other names or another order"
    except DatasetError as error:
        problem = str(error)
    return f"{problem}; the names of {description} are taken" if problem else None


def _names_of(path: Path, document: Any) -> list[str]:
    names = document.get("names") if isinstance(document, dict) else None
    if isinstance(names, dict):
        numbers = [int(key) if _is_number(key) else key for key in names]
        by_number = dict(zip(numbers, names.values(), strict=True))
        names = [by_number.get(index) for index in range(len(names))]
    if not isinstance(names, list) or not all(isinstance(name, str) and name.strip() for name in names):
        raise DatasetError(f"{path}: names: needs a list of class names, or a mapping of 0, 1, … to them")
    return [name.strip() for name in names]


def _values_per_pose(path: Path, document: Mapping[Any, Any]) -> int | None:
    if (shape := document.get("kpt_shape")) in (None, *NULL):
        return None
    if not (isinstance(shape, list) and len(shape) == 2 and all(map(_is_number, shape))):
        raise DatasetError(f"{path}: kpt_shape: needs two numbers, of keypoints and of values of each")
    return int(shape[0]) * int(shape[1])


def _sources(document: Mapping[Any, Any]) -> dict[str, list[str]]:
    """Split → what its key names, in whatever case the key is."""
    named = {str(key).lower(): value for key, value in document.items() if value not in (None, *NULL)}
    found = {}
    for split, keys in SPLIT_NAMES.items():
        if sources := next((named[key] for key in keys if key in named), None):
            found[split] = [str(source) for source in (sources if isinstance(sources, list) else [sources])]
    return found


def _splits_of_lists(top: Sequence[Path], tally: FileTally) -> dict[str, str]:
    """Split → list of images: from Darknet's *.data, else files called train.txt and so on that label no image."""
    for path in top:
        if path.suffix.lower() == ".data":
            tally.use(path)
            pairs = [line.partition("=") for line in read_lines(path)]
            return {key.strip().lower(): value.strip() for key, _, value in pairs}
    images = {path.stem for path in top if is_image(path)}
    names = [name for keys in SPLIT_NAMES.values() for name in keys if name not in images]
    return {path.stem.lower(): path.name for path in top if path.name.lower() in [f"{name}.txt" for name in names]}


def _is_number(text: Any) -> bool:
    return isinstance(text, str) and text.isdecimal() and len(text) < 10
