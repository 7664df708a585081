"""A Pascal VOC annotation, one XML file: its objects, and the size that it gives of its image."""

import math
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Literal

from data.boxes import FRACTION_TOLERANCE
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
        DatasetError: an object without a name, or without one box of four finite numbers, or all in fractions of the
            image.
    """
    objects: list[LabelledObject] = []
    numbers: list[float] = []
    for number, element in enumerate(tree.findall("object"), start=1):
        mark = (element.findtext("difficult") or "").strip().lower()
        hard = mark in ("true", "yes") or _number(mark) == 1
        if hard and difficult == "drop":
            continue
        where = f"{path}: object {number} has"
        if not (name := (element.findtext("name") or "").strip()):
            raise DatasetError(f"{where} no name; mend or remove it")
        x1, y1, x2, y2 = _corners(element, where)
        before = 1 if corners == "pixels" else 0  # the edges of the first pixel are one further left and up
        box = (x1 - before, y1 - before, x2, y2)
        objects.append(LabelledObject(name, box, crowd=hard and difficult == "crowd"))
        numbers += (x1, y1, x2, y2)
    in_shares = all(-FRACTION_TOLERANCE <= number <= 1 + FRACTION_TOLERANCE for number in numbers)
    if in_shares and any(number % 1 for number in numbers):
        raise DatasetError(
            f"{path}: all corners lie in 0..1: fractions of the image's sides, where VOC has pixels; multiply x by the "
            "image's width, y by its height"
        )
    return objects


def read_size(path: Path, tree: ElementTree.Element) -> tuple[int, int] | None:
    """(height, width) that the annotation gives; None where one is missing, empty or 0.

    Raises:
        DatasetError: one that no image can have.
    """
    sides = []
    for side in ("height", "width"):
        text = (tree.findtext(f"size/{side}") or "0").strip() or "0"
        value = _number(text)
        if not (value >= 0 and value % 1 == 0):  # inf % 1 is NaN
            raise DatasetError(
                f"{path}: <size> has the {side} {text!r}, which is no number of pixels; mend or remove <size>"
            )
        sides.append(int(value))
    height, width = sides
    return (height, width) if height and width else None


def _corners(element: ElementTree.Element, where: str) -> list[float]:
    boxes = element.findall("bndbox")
    if len(boxes) > 1:
        raise DatasetError(f"{where} {len(boxes)} bndboxes; mend or remove it")
    numbers = [_number(box.findtext(key, "")) for box in boxes for key in ("xmin", "ymin", "xmax", "ymax")]
    if not numbers or not all(map(math.isfinite, numbers)):
        raise DatasetError(f"{where} no bndbox of four numbers; mend or remove it")
    return numbers


def _number(text: str) -> float:
    """NaN where it is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan
