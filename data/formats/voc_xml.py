"""A Pascal VOC annotation, one XML file: its objects, and the size that it gives of its image."""

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Literal

from data.errors import DatasetError
from data.formats.convert import LabelledObject
from data.text_files import decode_text, read_bytes

Difficult = Literal["crowd", "keep", "drop"]
Corners = Literal["pixels", "edges"]
_DECLARED_ENCODING = re.compile(rb"""<\?xml[^>]*\sencoding\s*=\s*["']([\w.-]+)["']""")


def parse_xml(path: Path) -> ElementTree.Element:
    """The root of an XML file, with tags in lower case and without namespaces. Raises DatasetError."""
    data = read_bytes(path)
    declared = _DECLARED_ENCODING.match(data.lstrip())
    encoding = declared.group(1).decode() if declared else "utf-8"
    if encoding.lower().startswith("utf-16"):  # then the declaration could not have been found
        encoding = "utf-8"
    text = decode_text(data, path, encoding)
    try:
        tree = ElementTree.fromstring(text)  # given text, the parser, which knows few encodings, does not need them
    except (ElementTree.ParseError, ValueError) as error:
        raise DatasetError(f"{path}: not valid XML ({error})") from error
    for element in tree.iter():
        element.tag = element.tag.rpartition("}")[2].lower()
    return tree


def read_objects(path: Path, tree: ElementTree.Element, difficult: Difficult, corners: Corners) -> list[LabelledObject]:
    """The objects of an annotation, as `VocFolder.read` says.

    Args:
        path: names the file in errors.
    Raises:
        DatasetError: an object without a name or box.
    """
    objects = []
    for number, element in enumerate(tree.findall("object"), start=1):
        hard = (element.findtext("difficult") or "0").strip().lower() in ("1", "true", "yes")
        if hard and difficult == "drop":
            continue
        name = (element.findtext("name") or "").strip()
        try:
            numbers = [float(element.findtext(f"bndbox/{key}", "")) for key in ("xmin", "ymin", "xmax", "ymax")]
        except ValueError:
            numbers = []
        if not name or not numbers:
            problem = "no bndbox of four numbers" if name else "no name"
            raise DatasetError(f"{path}: object {number} has {problem}; mend or remove it")
        before = 1 if corners == "pixels" else 0  # the edges of the first pixel are one further left and up
        box = (numbers[0] - before, numbers[1] - before, numbers[2], numbers[3])
        objects.append(LabelledObject(name, box, crowd=hard and difficult == "crowd"))
    return objects


def read_size(tree: ElementTree.Element) -> tuple[int, int] | None:
    """(height, width) that the annotation gives; None where it gives none."""
    try:
        height, width = (int(tree.findtext(f"size/{side}", "0")) for side in ("height", "width"))
    except ValueError:
        return None
    return (height, width) if height and width else None
