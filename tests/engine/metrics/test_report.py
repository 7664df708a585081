"""Tables that fit a terminal, and JSON files that are never half written."""

import json
import math
import re
import unicodedata
from itertools import pairwise

import pytest

from engine.metrics.report import format_report, write_json

NAMES = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]
NAMES += ["oLRP", "oLRP_loc", "oLRP_fp", "oLRP_fn", "oLRP_s", "oLRP_m", "oLRP_l"]


def metrics(class_names: list[str]) -> dict:
    per_class = {
        name: {"AP": (i % 100) / 100, "oLRP": 0.25, "lrp_threshold": 0.5} for i, name in enumerate(class_names)
    }
    return {name: i / 100 for i, name in enumerate(NAMES)} | {"per_class": per_class}


def columns(line: str) -> int:
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line)


def word_ends(line: str) -> list[int]:
    return [match.end() for match in re.finditer(r"\S+", line)]


def test_every_metric_stands_under_its_name():
    lines = format_report(metrics([])).splitlines()
    found = {}
    for header, values in pairwise(lines):
        if not set(NAMES).isdisjoint(header.split()):
            found |= dict(zip(header.split(), values.split(), strict=True))
            assert word_ends(header) == word_ends(values)
    assert found == {name: f"{i / 100:.3f}" for i, name in enumerate(NAMES)}


def test_class_rows():
    result = metrics(["cat", "dog", "owl"])
    result["per_class"]["dog"] = {"AP": 0.0, "oLRP": 1.0, "lrp_threshold": None}
    result["per_class"]["owl"] = {"AP": None, "oLRP": None, "lrp_threshold": None}
    rows = [line.split() for line in format_report(result).splitlines()[-4:]]
    assert rows[0] == ["class", "AP", "oLRP", "threshold"]
    assert rows[1:] == [["cat", "0.000", "0.250", "0.500"], ["dog", "0.000", "1.000", "-"], ["owl", "-", "-", "-"]]


def test_undefined_metrics_are_dashes():
    report = format_report(dict.fromkeys(NAMES, -1.0) | {"oLRP": math.nan})
    assert report.split().count("-") == len(NAMES)


@pytest.mark.parametrize("count", [1, 20, 21, 80, 99, 100])
def test_lists_every_class_once_within_80_columns(count):
    names = [f"class{i}" for i in range(count)]
    report = format_report(metrics(names), "title")
    assert all(columns(line) <= 80 for line in report.splitlines())
    assert sorted(word for word in report.split() if word in names) == sorted(names)


def test_too_many_classes_are_only_counted():
    report = format_report(metrics([f"class{i}" for i in range(101)]))
    assert "class7" not in report and "101 classes" in report


def test_long_and_wide_names_keep_the_columns():
    names = ["a" * 16, "a very long name of a class", "交通信号灯和其他物体", "two\nlines"] * 6
    names = [f"{i}{name}" for i, name in enumerate(names)]
    *_, header = (line for line in format_report(metrics(names)).splitlines() if line.startswith("class"))
    rows = format_report(metrics(names)).splitlines()[-12:]
    assert {columns(row) for row in rows} == {columns(header)} and columns(header) <= 80


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new folder" / "metrics.json"
    write_json(path, {"AP": 0.5, "undefined": [math.nan, math.inf], "größe": None})
    assert json.loads(path.read_text()) == {"AP": 0.5, "undefined": [None, None], "größe": None}
    before = path.read_text()
    with pytest.raises(TypeError):
        write_json(path, {"AP": 0.7, "bad": object()})
    assert path.read_text() == before
    assert [p.name for p in path.parent.iterdir()] == ["metrics.json"]


def test_unwritable_path_raises(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        write_json(tmp_path / "file" / "metrics.json", {})
    for folder in (str(tmp_path), ".", "..", "/"):
        with pytest.raises(IsADirectoryError) as error:
            write_json(folder, {})
        assert error.value.filename == folder
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
