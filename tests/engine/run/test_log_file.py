"""log.txt: lines from before the run folder, and the error that ended the run."""

import logging
from pathlib import Path

import pytest

from engine.run.config import ConfigError
from engine.run.log_file import LogFile, hold_lines


@pytest.fixture(autouse=True)
def handlers():
    """Those of pytest stay, others go."""
    root = logging.getLogger()
    before, level = [*root.handlers], root.level
    root.setLevel(logging.INFO)
    yield
    root.handlers[:] = before
    root.setLevel(level)


def test_lines_held_before_are_first_and_a_later_start_goes_on(tmp_path):
    path = tmp_path / "log.txt"
    hold_lines()
    logging.getLogger("a").info("before the folder")
    log = LogFile(path)
    logging.getLogger("a").warning("in the run")
    log.close()
    logging.getLogger("a").info("after it")
    LogFile(path).close(ConfigError("wrong\nkey"))
    texts = [line.split(maxsplit=2)[2] for line in path.read_text().splitlines()]  # after date and time
    assert texts == ["before the folder", "in the run", "error: wrong key"]


def test_names_that_utf_8_cannot_write_are_escapes(tmp_path):
    root = logging.getLogger()
    root.handlers[:] = []  # pytest's keep what they get, and hand it over in UTF-8
    log = LogFile(tmp_path / "log.txt")
    root.warning("unreadable: %s", "caf\udce9.jpg")  # as Python reads a Latin-1 name
    log.close()
    assert (tmp_path / "log.txt").read_text().endswith("unreadable: caf\\udce9.jpg\n")


def test_a_full_disk_costs_the_lines_and_nothing_else(tmp_path, capsys):
    if not Path("/dev/full").exists():
        pytest.skip("the system has no /dev/full")
    (tmp_path / "log.txt").symlink_to("/dev/full")
    logging.getLogger().handlers[:] = []
    log = LogFile(tmp_path / "log.txt")
    logging.getLogger("a").warning("one")
    logging.getLogger("a").warning("two")
    log.close()
    assert capsys.readouterr().err == ""


def test_a_bug_leaves_its_traceback(tmp_path):
    log = LogFile(tmp_path / "log.txt")
    try:
        raise KeyError("no such thing")
    except KeyError as error:
        log.close(error)
    text = (tmp_path / "log.txt").read_text()
    assert "Traceback" in text and text.rstrip().endswith("KeyError: 'no such thing'")
