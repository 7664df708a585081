"""eval.py --report and its other files: what is written, when, and what is never replaced."""

import json
import shutil
import sys

import pytest

CLASSES = ["circle", "square", "triangle", "star", "cross", "ring"]


@pytest.mark.parametrize("name", ["index.html", "lrp.png"])
def test_a_report_never_replaces_what_was_not_written_there(
    evaluate_with_report, write_checkpoint, tmp_path, capsys, name
):
    checkpoint = write_checkpoint(tmp_path, CLASSES)
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / name).write_text("mine")
    with pytest.raises(SystemExit) as stop:
        evaluate_with_report(checkpoint)
    assert stop.value.code == 2 and f"{name}: exists and was not written there" in capsys.readouterr().err
    assert [path.read_text() for path in (tmp_path / "report").iterdir()] == ["mine"]
    assert not (tmp_path / "m.json").exists()  # said before the work begins


@pytest.mark.parametrize("option", ["--json", "--detections"])
def test_a_result_never_replaces_an_input(evaluate_with_report, write_checkpoint, shapes, tmp_path, capsys, option):
    checkpoint = write_checkpoint(tmp_path, CLASSES)
    inputs = [checkpoint, shapes / "annotations/instances_val.json", next((shapes / "val").glob("*.jpg"))]
    before = [path.read_bytes() for path in inputs]
    link = tmp_path / "link"
    link.symlink_to(inputs[1])
    for output in (*inputs, link):
        with pytest.raises(SystemExit) as stop:
            evaluate_with_report(checkpoint, option, output)
        assert stop.value.code == 2 and "is an input, or a link to one" in capsys.readouterr().err
    assert [path.read_bytes() for path in inputs] == before and link.is_symlink()


def test_a_report_that_cannot_be_written_is_one_line(evaluate_with_report, write_checkpoint, tmp_path, capsys):
    checkpoint = write_checkpoint(tmp_path, CLASSES)
    (tmp_path / "report").write_text("a file")
    with pytest.raises(SystemExit) as stop:
        evaluate_with_report(checkpoint)
    assert stop.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert f"{tmp_path}/report is no folder" in line
    assert not (tmp_path / "m.json").exists()  # said before the work begins


def test_all_files_are_written_before_anything_is_printed(
    evaluate_with_report, write_checkpoint, tmp_path, monkeypatch
):
    def fail(*_, **__):
        raise BrokenPipeError(32, "Broken pipe")

    checkpoint = write_checkpoint(tmp_path, CLASSES)
    monkeypatch.setattr("engine.metrics.report.format_report", fail)
    with pytest.raises(BrokenPipeError):
        evaluate_with_report(checkpoint)
    assert (tmp_path / "m.json").exists() and (tmp_path / "report/index.html").exists()


def test_the_table_is_printed_where_the_report_fails(
    evaluate_with_report, write_checkpoint, tmp_path, monkeypatch, capsys
):
    def fail(*_):
        raise OSError(28, "No space left on device")

    checkpoint = write_checkpoint(tmp_path, CLASSES)
    monkeypatch.setattr("engine.reporting.evaluation_report.write_report", fail)
    with pytest.raises(SystemExit):
        evaluate_with_report(checkpoint)
    assert "oLRP_loc" in capsys.readouterr().out


def test_half_of_a_surrogate_pair_in_a_class_name_is_an_escape(
    evaluate_with_report, write_checkpoint, shapes, tmp_path, capsys
):
    names = [*CLASSES[:-1], "\udcff"]
    shutil.copytree(shapes, tmp_path / "data")
    file = tmp_path / "data/annotations/instances_val.json"
    content = json.loads(file.read_text())
    for category, name in zip(sorted(content["categories"], key=lambda each: each["id"]), names, strict=True):
        category["name"] = name
    file.write_text(json.dumps(content))
    checkpoint = write_checkpoint(tmp_path, names)
    sys.stdout.reconfigure(errors="backslashreplace")  # as that of a command is
    assert evaluate_with_report(checkpoint, f"data.root={tmp_path}/data") == 0
    assert "\\udcff" in (tmp_path / "report/index.html").read_text(encoding="utf-8")
