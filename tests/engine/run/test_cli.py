"""What ends a command: one line and a status for user errors, a traceback for bugs; and no name, whatever it holds."""

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from tensorboard.summary.writer import event_file_writer

from data import DatasetError
from engine.run.cli import _report_uncaught_in_thread, user_errors
from engine.run.config import ConfigError
from engine.training.train_step import TrainingError

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("error", "status", "expected"),
    [
        (ConfigError("c.yaml: optimizer.lr: wrong"), 2, "error: c.yaml: optimizer.lr: wrong\n"),
        (DatasetError("x.jpg:\nunreadable"), 2, "error: x.jpg: unreadable\n"),
        (TrainingError("step 3: not finite"), 1, "error: step 3: not finite\n"),
        (OSError(28, "No space left on device"), 1, "error: No space left on device; make room"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), 1, "error: Disk quota exceeded; make room"),
        (IsADirectoryError(21, "Is a directory", "runs"), 1, "error: runs: is a folder; name a file\n"),
        (FileNotFoundError(2, "No such file or directory", "out.json"), 1, "error: out.json: No such file"),
    ],
)
def test_user_errors_are_one_line_and_a_status(capsys, error, status, expected):
    with pytest.raises(SystemExit) as stop, user_errors():
        raise error
    assert stop.value.code == status
    text = capsys.readouterr().err
    assert text.startswith(expected)
    assert text.count("\n") == 1


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB.\nmore"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        MemoryError(),
    ],
)
def test_out_of_memory_names_the_keys_that_help(capsys, error):
    with pytest.raises(SystemExit) as stop, user_errors():
        raise error
    text = capsys.readouterr().err
    assert stop.value.code == 1
    assert text.count("\n") == 1
    assert "data.batch_size" in text and "data.accumulate" in text


def test_only_the_first_process_to_fail_says_why(capsys):
    class Late:
        def first_to_fail(self):
            return False

    for error, status in ((ConfigError("said by another"), 2), (ValueError("a bug"), 1)):
        with pytest.raises(SystemExit) as stop, user_errors(processes=Late()):
            raise error
        assert stop.value.code == status
    assert capsys.readouterr().err == ""


def test_quiet_processes_leave_the_word_to_the_main_one(capsys, monkeypatch):
    class Ended(BaseException):
        """What torchrun does to a process whose fellow has failed."""

    def end(seconds):
        raise Ended

    monkeypatch.setattr("time.sleep", end)
    with pytest.raises(Ended), user_errors(quiet=True):
        raise ConfigError("wrong on every process")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the main process did not fail
    with pytest.raises(SystemExit), user_errors(quiet=True):
        raise ConfigError("wrong on this host")
    assert capsys.readouterr().err == "error: wrong on this host\n"


def test_bugs_keep_their_traceback():
    for bug in (RuntimeError("shape mismatch"), ValueError("bug"), OSError("no file in it")):
        with pytest.raises(type(bug)), user_errors():
            raise bug


@pytest.mark.parametrize(("encoding", "shown"), [("ascii", "\\u72ac \\udcff"), ("utf-8", "犬 \\udcff")])
def test_names_that_the_terminal_cannot_show_are_escaped(encoding, shown):
    code = "import sys, engine.run.cli; [print('\\u72ac \\udcff', file=file) for file in (sys.stdout, sys.stderr)]"
    environment = os.environ | {"PYTHONIOENCODING": f"{encoding}:strict"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, check=False)
    assert done.stdout.decode() == done.stderr.decode() == shown + "\n"


@pytest.mark.parametrize(("error", "told"), [(OSError(28, "No space left on device"), False), (KeyError("bug"), True)])
def test_the_writer_of_events_leaves_a_full_disk_to_the_main_thread(capsys, error, told):
    class _AsyncWriterThread(threading.Thread):  # as TensorBoard calls it
        def run(self):
            _report_uncaught_in_thread(threading.ExceptHookArgs((type(error), error, None, self)))

    thread = _AsyncWriterThread()
    thread.start()
    thread.join()
    assert ("KeyError" in capsys.readouterr().err) == told
    assert issubclass(event_file_writer._AsyncWriterThread, threading.Thread)
