"""Evaluation results as tables for a terminal of 80 columns and as JSON."""

import errno
import json
import math
import os
import unicodedata
from pathlib import Path

SUMMARY_TABLES = (
    ("AP", "AP50", "AP75", "APs", "APm", "APl"),
    ("AR1", "AR10", "AR100", "ARs", "ARm", "ARl"),
    ("oLRP", "oLRP_loc", "oLRP_fp", "oLRP_fn", "oLRP_s", "oLRP_m", "oLRP_l"),
)
MAX_CLASSES = 100  # longer tables than this are for the JSON file
TWO_COLUMNS_FROM = 21  # classes
NAME_WIDTH = 16
THRESHOLD_COLUMNS = {
    "AP": 6,
    "oLRP": 6,
    "lrp_threshold": 11,
    "lrp_precision": 8,
    "lrp_recall": 7,
    "f1_threshold": 11,
    "f1_precision": 8,
    "f1_recall": 7,
}


def format_report(metrics: dict, title: str | None = None) -> str:
    """Tables of AP and AR, of oLRP with its components, and of the classes; no final newline.

    Args:
        metrics: what `evaluate_detections` or `evaluate` returns: fractions of 1; -1 and None are shown as "-".
            Without `per_class`, or with more than 100 classes, there is no table of the classes.
        title: first line, underlined.
    """
    blocks = [f"{title}\n{'=' * _width(title)}"] if title else []
    for names in SUMMARY_TABLES:
        header = "".join(f"{name:>10}" for name in names)
        blocks.append(header + "\n" + "".join(f"{format_number(metrics[name]):>10}" for name in names))
    per_class = metrics.get("per_class", {})
    if 0 < len(per_class) <= MAX_CLASSES:
        has_points = all("f1_threshold" in row for row in per_class.values())
        blocks.append(_threshold_table(per_class) if has_points else _class_table(per_class))
    elif per_class:
        blocks.append(f"({len(per_class)} classes: too many for a table here)")
    return "\n\n".join(blocks)


def write_json(path: str | Path, content: object) -> None:
    """Writes `content` as JSON, at once: readers see the old file or the whole new one.

    Numbers that are not finite become null; missing parent folders are made.

    Raises:
        OSError: the file cannot be written; what was there stays.
    """
    path = Path(path)
    if path.is_dir():  # "." and "/" have no name to make a temporary one of
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    indent = 1 if isinstance(content, dict) else None  # lists of detections are long, and for machines
    text = json.dumps(_finite(content), indent=indent, ensure_ascii=False, allow_nan=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(text.encode(errors="backslashreplace"))  # half of a surrogate pair: its JSON escape
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        error.filename = str(path)  # not the temporary name, which says nothing to the user
        if error.filename2 is not None:
            del error.filename2  # None would be printed
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _class_table(per_class: dict[str, dict]) -> str:
    header = _class_row("class", "AP", "oLRP", "threshold")
    rows = [
        _class_row(name, format_number(row["AP"]), format_number(row["oLRP"]), format_number(row["lrp_threshold"]))
        for name, row in per_class.items()
    ]
    if len(rows) < TWO_COLUMNS_FROM:
        return "\n".join([header, *rows])
    half = (len(rows) + 1) // 2  # reads down the left column, then the right
    right = [*rows[half:], ""]
    lines = [f"{left}  {right}".rstrip() for left, right in zip(rows[:half], right, strict=False)]
    return "\n".join([f"{header}  {header}", *lines])


def _threshold_table(per_class: dict[str, dict]) -> str:
    """AP and oLRP of the classes, and threshold, precision and recall at the LRP-optimal score and at the best F1."""
    groups = f"{'':{NAME_WIDTH + 12}}{'LRP-optimal':>26}{'F1-optimal':>26}"
    header = _pad("class", NAME_WIDTH) + f"{'AP':>6}{'oLRP':>6}" + f"{'threshold':>11}{'prec':>8}{'rec':>7}" * 2
    rows = []
    for name, row in per_class.items():
        points = [f"{format_number(row[key]):>{width}}" for key, width in THRESHOLD_COLUMNS.items()]
        rows.append(_pad(name, NAME_WIDTH) + "".join(points))
    return "\n".join([groups, header, *rows])


def _class_row(name: str, ap: str, olrp: str, threshold: str) -> str:
    return f"{_pad(name, NAME_WIDTH)}{ap:>6}{olrp:>6}{threshold:>10}"


def format_number(value: float | None) -> str:
    """Three decimals; "-" where undefined: None, -1 or not finite."""
    return "-" if value is None or value == -1 or not math.isfinite(value) else f"{value:.3f}"


def _width(text: str) -> int:
    """Terminal columns: East Asian wide characters take two, combining ones none."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _pad(text: str, width: int) -> str:
    text = " ".join(text.split())
    if _width(text) >= width:
        while _width(text) > width - 2:
            text = text[:-1]
        text += "…"
    return text + " " * (width - _width(text))


def _finite(content: object) -> object:
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
