"""Which annotation files of a data set in COCO layout are to train on, to validate with and to test with."""

import shlex
from pathlib import Path
from typing import NamedTuple

from data.errors import DatasetError

BEGINNINGS = (("train",), ("val", "dev"), ("test",))  # of the names of train, val and test


class Splits(NamedTuple):
    """Names of the splits to train on, to validate with and to test with; None: there is none."""

    train: str
    val: str
    test: str | None


def find_splits(root: Path) -> Splits:
    """The splits of a data set, told by how their names begin.

    Raises:
        DatasetError: nothing to train on, or nothing to validate with.
    """
    names = sorted(path.stem.partition("_")[2] for path in (root / "annotations").glob("instances_*.json"))
    train, val, test = (
        min((name for name in names if name.lower().startswith(starts)), key=len, default=None) for starts in BEGINNINGS
    )
    if train is None or val is None:
        there = f"the splits there are {', '.join(names)}" if names else "there is no instances_<split>.json"
        remedy = "docs/custom-data.md has the format, and the converters draw splits with --val 0.2"
        if train is not None or len(names) == 1:  # what import_coco.py can draw val from
            new = shlex.quote(f"{root}_split")
            remedy = (
                f"python scripts/import_coco.py {shlex.quote(str(root))} --output {new} --val 0.2 draws val at random, "
                f"and --root {new} then has both"
            )
        raise DatasetError(
            f"{root / 'annotations'}: a split to train on and one to validate with are needed, named train… and val…; "
            f"{there}; {remedy}"
        )
    return Splits(train, val, test)
