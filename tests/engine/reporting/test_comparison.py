"""compare_runs.py: results side by side, and only those settings in which runs differ."""

import json

import pytest
import yaml

import scripts.compare_runs as script
from engine.reporting.comparison import METRICS, differing_settings, read_runs

RECORD = dict.fromkeys(METRICS, 0.5)


def write_run(path, lr=0.02, loss="alrp", aps=(0.1, 0.3, 0.2)):
    path.mkdir(parents=True)
    config = {"loss": {"name": loss}, "optimizer": {"lr": lr}, "run": {"name": path.name, "seed": 0}}
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    records = [RECORD | {"epoch": epoch, "step": 10 * epoch, "AP": ap} for epoch, ap in enumerate(aps, start=1)]
    if records:
        (path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def compare(monkeypatch, tmp_path, *runs) -> None:
    monkeypatch.setattr("sys.argv", ["compare_runs.py", *map(str, runs), "--output", str(tmp_path / "out" / "c.png")])
    script.main()


def test_prints_last_and_best_results_and_draws_them(tmp_path, monkeypatch, capsys):
    compare(monkeypatch, tmp_path, write_run(tmp_path / "a"), write_run(tmp_path / "b", lr=0.04, aps=(0.25, -1)))
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["a", "3", "0.200", *["0.500"] * 6, "0.300", "(2)"] in rows
    assert ["b", "2", "-", *["0.500"] * 6, "0.250", "(1)"] in rows
    assert ["optimizer.lr", "0.02", "0.04"] in rows
    assert not any(row and row[0] in ("run.name", "loss.name") for row in rows)
    assert (tmp_path / "out" / "c.png").read_bytes().startswith(b"\x89PNG")


def test_only_a_named_picture_replaces_a_file(tmp_path, monkeypatch, capsys, call):
    run = write_run(tmp_path / "a")
    monkeypatch.chdir(tmp_path)
    call(script, run)
    assert capsys.readouterr().out.endswith("picture: comparison.png\n")
    picture = tmp_path / "comparison.png"
    picture.write_text("mine")
    call(script, run)
    printed = capsys.readouterr().out
    assert "0.300" in printed and "no picture: comparison.png exists; name another file with --output" in printed
    assert picture.read_text() == "mine"
    call(script, run, "--output", "comparison.png")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_runs_of_one_name_are_told_apart_and_a_run_counts_once(tmp_path):
    folders = [write_run(tmp_path / "x" / "same"), write_run(tmp_path / "y" / "same", loss="focal")]
    runs = read_runs([*folders, tmp_path / "x" / ".." / "x" / "same"])
    assert [run.name for run in runs] == ["x/same", "y/same"]
    assert differing_settings(runs) == {"loss.name": ["alrp", "focal"]}


def test_a_run_without_evaluations_and_one_run_alone(tmp_path, monkeypatch, capsys):
    compare(monkeypatch, tmp_path, write_run(tmp_path / "new", aps=()))
    assert "new  not evaluated yet" in capsys.readouterr().out
    compare(monkeypatch, tmp_path, tmp_path / "new", write_run(tmp_path / "twin"))
    assert "The runs have the same settings." in capsys.readouterr().out


def test_folders_that_are_no_runs_are_one_line(tmp_path, monkeypatch, capsys):
    damaged = write_run(tmp_path / "damaged")
    (damaged / "metrics.jsonl").write_text("{")
    old = write_run(tmp_path / "old")
    (old / "metrics.jsonl").write_text('{"epoch": 1}\n')
    odd = write_run(tmp_path / "odd")
    (odd / "metrics.jsonl").write_text("5\n")
    cases = ((tmp_path / "gone", "no config.yaml"), (damaged, "damaged"), (old, "lacks 'AP'"), (odd, "lacks 'epoch'"))
    for folder, expected in cases:
        with pytest.raises(SystemExit) as stop:
            compare(monkeypatch, tmp_path, folder)
        assert stop.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error:") and str(folder) in line and expected in line
