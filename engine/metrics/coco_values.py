"""What numbers, boxes and ids of COCO's format may be, and how wrong ones are shown."""

import reprlib
import sys

import numpy as np

from .file_names import INTEGERS

EXPECTED_BOX = "expected four numbers [x, y, width, height], none infinite, no side negative"
NUMBERS = (*INTEGERS, float, np.floating)
BOXES = (list, tuple, np.ndarray)


def shown(value: object) -> str:
    """Cut short, and on one line, which a matrix of NumPy's is not."""
    return " ".join(reprlib.repr(value).split())


def is_number(value: object) -> bool:
    """Whether it is a finite float64, or an integer within its range."""
    if isinstance(value, np.floating):
        value = float(value)  # in a smaller type the limit below would be infinite
    return isinstance(value, NUMBERS) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def is_four_numbers(bbox: object) -> bool:
    if not isinstance(bbox, BOXES) or getattr(bbox, "ndim", 1) != 1 or len(bbox) != 4:
        return False
    return all(isinstance(value, NUMBERS) and not isinstance(value, bool) for value in bbox)


def id_problem(entry: dict, key: str) -> str | None:
    """What is wrong with an id, None if nothing is."""
    if isinstance(entry[key], INTEGERS) and not isinstance(entry[key], bool):
        return None
    return f"has {key} {shown(entry[key])} of type {type(entry[key]).__name__}; expected an integer"
