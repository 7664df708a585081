"""eval.py in this process, with its report in the test's folder."""

import importlib
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def evaluate_with_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    def evaluate(checkpoint: Path, *more: object) -> int:
        line = ["eval.py", "--ckpt", checkpoint, "--report", tmp_path / "report", "--json", tmp_path / "m.json", *more]
        monkeypatch.setattr("sys.argv", [str(part) for part in line])
        command = importlib.import_module("eval")
        monkeypatch.setattr(command, "log_to_console", lambda is_main: None)  # it would outlive the test
        return command.main()

    return evaluate
