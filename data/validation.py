"""Faults in the content of a COCO annotation file, record by record."""

import math
import posixpath
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

MAX_PIXELS = 178_956_970  # of an image; Pillow opens no larger ones, for fear of decompression bombs


class Problem(NamedTuple):
    """A record that cannot be used. `section` and `position` find it, `kind` is the same for alike problems, and
    `message` is one line that names it."""

    section: str
    position: int
    kind: str
    message: str


def is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def _is_side(value: Any) -> bool:
    return is_integer(value) and value > 0


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(isinstance(v, float) or is_integer(v) for v in value)


def _is_flag(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and value in (0, 1))


def _is_file_name(value: Any) -> bool:
    if not isinstance(value, str) or "\0" in value:
        return False
    return value.replace("\\", "/").split("/")[-1] not in ("", ".", "..")  # as `CocoDetection.path` tries it


def _is_name(value: Any) -> bool:
    return isinstance(value, str)


FIELDS = {
    "images": {
        "id": (is_integer, "an integer"),
        "height": (_is_side, "a positive integer"),
        "width": (_is_side, "a positive integer"),
        "file_name": (_is_file_name, "the path of a file"),
    },
    "categories": {"id": (is_integer, "an integer"), "name": (_is_name, "a string")},
    "annotations": {
        "image_id": (is_integer, "an integer"),
        "category_id": (is_integer, "an integer"),
        "bbox": (_is_box, "four numbers"),
        "iscrowd": (_is_flag, "0 or 1"),
    },
}


def record_problems(document: dict[str, Any]) -> Iterator[Problem]:
    """Records of a COCO document that cannot be used, in the order images, categories, annotations.

    Args:
        document: with the lists "images", "categories" and "annotations" of anything. An annotation of an image that
            cannot be used is of an unknown image.
    """
    known: dict[str, set[int]] = {}
    for section, fields in FIELDS.items():
        ids = known.setdefault(section, set())
        names: set[str] = set()
        for position, record in enumerate(document[section]):
            fault = _field_fault(record, fields) or _relation_fault(section, record, ids, names, known)
            if fault is not None:
                kind, detail = fault
                where = f"{section}[{position}]"
                if isinstance(record, dict):
                    where += f" (id {_short(record.get('id'))})"
                yield Problem(section, position, f"{section}: {kind}", f"{where}: {detail or kind}")
            elif section != "annotations":
                ids.add(record["id"])
                names.add(record.get("name"))


def shared_image_id(document: dict[str, Any]) -> str | None:
    """One line about the first image whose id is that of an image of another file; None where there is none.

    No such entry can be left out: an annotation of this id may be of either file. Entries count that cannot be used.
    """
    first: dict[int, tuple[int, str]] = {}  # id → position and file_name
    for position, record in enumerate(document["images"]):
        is_named = isinstance(record, dict) and _is_file_name(record.get("file_name"))
        if not (is_named and is_integer(record.get("id"))):
            continue
        image_id, written = record["id"], record["file_name"]
        other, name = first.setdefault(image_id, (position, written))
        if plain_file_name(name) != plain_file_name(written):
            return (
                f"images[{position}] (id {image_id}): this id is also that of images[{other}], another file ({name}), "
                "so annotations cannot be told apart; give each image its own id, or import the exports one by one"
            )
    return None


def plain_file_name(file_name: str) -> str:
    """One spelling of an image's relative path: with slashes, and without what it passes through in vain."""
    return posixpath.normpath(file_name.replace("\\", "/"))


def _field_fault(record: Any, fields: dict) -> tuple[str, str] | None:
    if not isinstance(record, dict):
        return "not an object", ""
    for key, (is_valid, expected) in fields.items():
        if not is_valid(record.get(key)):
            return f"{key!r} must be {expected}", ""
    return None


def _relation_fault(
    section: str, record: dict, ids: set[int], names: set[str], known: dict[str, set[int]]
) -> tuple[str, str] | None:
    if section == "annotations":
        for key, owner in (("image_id", "images"), ("category_id", "categories")):
            if record[key] not in known[owner]:
                return f"unknown {key}", f"unknown {key}, {record[key]}"
    elif record["id"] in ids:
        remedy = "; give each category its own id" if section == "categories" else ""
        return "id occurs more than once", f"id {record['id']} occurs more than once{remedy}"
    elif section == "images" and record["height"] * record["width"] > MAX_PIXELS:
        return (
            f"more than {MAX_PIXELS} pixels",
            f"{record['width']}×{record['height']} are more than {MAX_PIXELS} pixels",
        )
    elif section == "categories" and record["name"] in names:
        return "name occurs more than once", f"two categories are named {record['name']!r}; rename one"
    return None


def repeated_objects(annotations: Sequence[dict[str, Any]]) -> list[int]:
    """Positions of annotations that repeat an earlier one: the same image, category and box."""
    seen: set[tuple] = set()
    repeated = []
    for position, record in enumerate(annotations):
        key = (record["image_id"], record["category_id"], *record["bbox"])
        if key in seen:
            repeated.append(position)
        seen.add(key)
    return repeated


def has_area(record: dict[str, Any]) -> bool:
    """Whether an annotation says how large its object is; -1, which some tools write for unknown, does not."""
    area = record.get("area")
    return isinstance(area, int | float) and not isinstance(area, bool) and 0 <= area < math.inf


def box_fault(bbox: list[float], height: int, width: int) -> str | None:
    """The fault of a box [x, y, width, height] of an image, None if it has none. Boxes with a fault are clipped or,
    without area inside the image, dropped."""
    x, y, w, h = bbox
    if not all(map(math.isfinite, bbox)):
        return "box not finite"
    if w < 0 or h < 0:
        return "box of negative size"
    if w == 0 or h == 0:
        return "box of size zero"
    if x >= width or y >= height or x + w <= 0 or y + h <= 0:
        return "box outside of its image"
    if w < 1 and h < 1:
        return "box smaller than a pixel"
    if x < -1 or y < -1 or x + w > width + 1 or y + h > height + 1:  # a pixel beyond is rounding
        return "box reaches out of its image"
    return None


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:39] + "…"
