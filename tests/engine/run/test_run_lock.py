"""Two runs in one folder: the second is refused, for as long as the first one lives."""

import errno
import fcntl
import multiprocessing
import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from engine.run.config import ConfigError
from engine.run.run_lock import RunLock
from scripts import ablation

ROOT = Path(__file__).resolve().parents[3]


def hold(folder: Path, ours: Connection) -> None:
    with RunLock(folder):
        worker = os.fork()  # as a loader process, which outlives its parent
        if worker:
            ours.send(worker)
        signal.pause()


@pytest.fixture
def holder(tmp_path):
    """(process that holds the lock of tmp_path / "run" and has a child, the child's id)."""
    here, there = multiprocessing.Pipe()
    fork = multiprocessing.get_context("fork")  # in which nothing is imported anew
    process = fork.Process(target=hold, args=(tmp_path / "run", there))
    process.start()
    worker = here.recv()
    yield process, worker
    process.kill()
    process.join()
    os.kill(worker, signal.SIGKILL)


def test_the_second_run_is_refused_and_told_of_the_first(holder, tmp_path):
    process, _ = holder
    (tmp_path / "run" / "config.yaml").touch()
    with (
        pytest.raises(ConfigError, match=rf"run: process {process.pid} on .* another run\.name"),
        RunLock(tmp_path / "run"),
    ):
        pass
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"config.yaml", ".lock"}


def test_a_second_ablation_in_a_folder_is_refused(holder, tmp_path, call, capsys):
    process, _ = holder
    grid = ROOT / "configs/ablations/proof/bccd_cpu.yaml"
    with pytest.raises(SystemExit, match="2"):
        call(ablation, "--grid", grid, "--output", tmp_path / "run", "--processes", 1)
    message = capsys.readouterr().err
    assert f"run: process {process.pid} on" in message and message.endswith("another --output\n")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {".lock"}


def test_a_crash_releases_the_lock_though_its_loader_processes_live(holder, tmp_path):
    process, worker = holder
    process.kill()
    process.join()
    with RunLock(tmp_path / "run"):
        os.kill(worker, 0)  # it is there


def test_nothing_remains_of_a_lock(tmp_path):
    with RunLock(tmp_path / "empty"):
        pass
    with RunLock(tmp_path / "run"):
        (tmp_path / "run" / "config.yaml").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["run", "config.yaml"]


def test_a_lock_that_its_holder_has_just_removed_is_not_taken_for_one(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    lock, removals = fcntl.lockf, []

    def removed_in_between(descriptor, how):
        if not removals:
            removals.append((folder / ".lock").unlink())
        return lock(descriptor, how)

    monkeypatch.setattr(fcntl, "lockf", removed_in_between)
    with RunLock(folder):
        assert (folder / ".lock").read_text().startswith(f"process {os.getpid()} on ")


def test_a_file_system_without_locks_is_worth_one_warning(tmp_path, monkeypatch, caplog):
    def unsupported(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", unsupported)
    with RunLock(tmp_path / "run"):
        pass
    (record,) = caplog.records
    assert "no locks on this file system" in record.getMessage()


def test_train_refuses_a_folder_in_which_a_run_lives(holder, here, config_file, tmp_path):
    folder = tmp_path / "run"
    result = here("train.py", "--config", config_file, f"run.dir={tmp_path}", "run.name=run", "--resume", "auto")
    assert result.returncode == 2
    (line,) = [text for text in result.stderr.splitlines() if text.startswith("error:")]
    assert f"process {holder[0].pid}" in line and str(folder) in line
    assert [path.name for path in folder.iterdir()] == [".lock"]
