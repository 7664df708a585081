"""The examples of docs/metrics.md run, print what they say they print, and name what is in the results."""

import re
import sys
from pathlib import Path

import pytest

import engine.metrics
from engine.metrics import command

TEXT = (Path(__file__).resolve().parents[3] / "docs" / "metrics.md").read_text()


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict:
    """Where the examples run; alrp.metrics is what the clone has."""
    monkeypatch.setitem(sys.modules, "alrp", engine)
    monkeypatch.setitem(sys.modules, "alrp.metrics", engine.metrics)
    return {}


def test_examples_print_what_they_say(names, capsys):
    pytest.importorskip("pycocotools")
    for example in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL):
        exec(example, names)
    assert names["result"]["oLRP"].item() == pytest.approx(0.2)
    printed = capsys.readouterr().out.splitlines()
    said = re.findall(r"^print\(.*\)  # (.*)$", TEXT, re.MULTILINE)
    assert len(printed) == len(said) == 5
    for line, claim in zip(printed, said, strict=True):
        assert line == claim or (claim.startswith("about") and claim.split()[-1] == line.split()[-1])


def test_every_name_of_the_table_is_in_the_result(names):
    exec(re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)[0], names)
    metrics = names["metrics"]
    rows = re.findall(r"^\| (.*`.*) \| .* \|$", TEXT, re.MULTILINE)
    listed = {name for row in rows for quoted in re.findall(r"`(.*?)`", row) for name in quoted.split()}
    assert listed == {*metrics, *metrics["per_class"]["cat"]}


def test_the_command_has_the_documented_options(capsys):
    (line,) = re.findall(r"^alrp (.*)$", TEXT, re.MULTILINE)
    with pytest.raises(SystemExit):
        command.main(line.split())
    assert "instances_val.json: cannot be read" in capsys.readouterr().err  # so the options are known
