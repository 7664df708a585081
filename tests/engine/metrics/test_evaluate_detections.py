"""scripts/evaluate_detections.py: what it prints and writes."""

import json
import runpy
import sys
from pathlib import Path

import pytest
from metric_files import write

from engine.metrics import evaluate_detections

SCRIPT = Path(__file__).resolve().parents[3] / "scripts/evaluate_detections.py"


def run_script(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["evaluate_detections.py", *map(str, arguments)])
    monkeypatch.setattr(sys, "path", [*sys.path])
    runpy.run_path(str(SCRIPT), run_name="__main__")


def test_script_prints_the_report_and_writes_the_metrics(annotations, detections, tmp_path, monkeypatch, capsys):
    files = write(tmp_path / "a.json", annotations), write(tmp_path / "d.json", detections)
    out = tmp_path / "out/metrics.json"
    run_script(monkeypatch, "--annotations", files[0], "--detections", files[1], "--json", out)
    printed = capsys.readouterr()
    assert "oLRP_loc" in printed.out and "cat" in printed.out and printed.err == ""
    assert json.loads(out.read_text()) == evaluate_detections(*files)


def test_metrics_are_written_before_the_report_is_printed(annotations, detections, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise BrokenPipeError(32, "Broken pipe")

    files = write(tmp_path / "a.json", annotations), write(tmp_path / "d.json", detections)
    monkeypatch.setattr("builtins.print", fail)
    with pytest.raises(BrokenPipeError):
        run_script(monkeypatch, "--annotations", files[0], "--detections", files[1], "--json", tmp_path / "m.json")
    assert json.loads((tmp_path / "m.json").read_text()) == evaluate_detections(*files)


def test_the_report_is_printed_where_the_metrics_cannot_be_written(
    annotations, detections, tmp_path, monkeypatch, capsys
):
    def full(*_):
        raise OSError(28, "No space left on device", "m.json")

    files = write(tmp_path / "a.json", annotations), write(tmp_path / "d.json", detections)
    monkeypatch.setattr("engine.metrics.report.write_json", full)
    with pytest.raises(SystemExit) as stopped:
        run_script(monkeypatch, "--annotations", files[0], "--detections", files[1], "--json", tmp_path / "m.json")
    printed = capsys.readouterr()
    assert stopped.value.code == 1 and printed.err.startswith("error: m.json: No space left")
    assert "oLRP_loc" in printed.out


def test_script_reports_a_user_error_in_one_line(annotations, tmp_path, monkeypatch, capsys):
    files = write(tmp_path / "a.json", annotations), write(tmp_path / "d.json", "{}")
    with pytest.raises(SystemExit) as stopped:
        run_script(monkeypatch, "--annotations", files[0], "--detections", files[1])
    printed = capsys.readouterr()
    assert (stopped.value.code, printed.out, printed.err.count("\n")) == (2, "", 1)
    assert printed.err.startswith(f"error: {files[1]}: is not a list; expected")
