"""The revision of the code, of a checkout and without one."""

import subprocess

import pytest
import torch

from engine.run.provenance import provenance, revision


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "a")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "a@b")
    (tmp_path / "file").write_text("1")
    for line in (["init", "-q"], ["add", "file"], ["commit", "-q", "-m", "first"]):
        subprocess.run(["git", *line], cwd=tmp_path, check=True)
    return tmp_path


def test_a_checkout_has_its_commit_and_says_whether_files_were_changed(checkout):
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=checkout, capture_output=True, text=True, check=True)
    commit = head.stdout.strip()
    (checkout / "new").write_text("untracked files are no change")
    assert revision(checkout) == commit
    (checkout / "file").write_text("2")
    assert revision(checkout) == f"{commit} + changes"


def test_a_folder_within_somebody_elses_checkout_has_none(checkout, monkeypatch):
    (checkout / "inside").mkdir()
    assert revision(checkout / "inside") == "unknown"
    monkeypatch.setenv("PATH", "")  # no git
    assert revision(checkout) == "unknown"


def test_everything_is_text():
    found = provenance(torch.device("cpu"), 2, "float32")
    assert all(isinstance(value, str) and value for value in found.values())
    assert (found["processes"], found["precision"]) == ("2", "float32")
