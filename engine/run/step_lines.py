"""Files of a run with one JSON object per line, each with its `step`, written line by line as training goes on."""

import json
from pathlib import Path
from typing import Any

from data.files import write_atomically


class StepLines:
    """A file that a killed run leaves whole up to its last line, and that a resumed one goes on in.

    Args:
        path: the file; lines of steps after `step`, and what follows a line that was cut off, are dropped.
        step: steps done so far.

    Attributes:
        kept: the lines that were there.
    """

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        self.kept = [line for line in read_step_lines(path) if line["step"] <= step]
        write_atomically(path, lambda file: file.write("".join(map(_json_line, self.kept)).encode()))

    def append(self, line: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:  # closed, so that a kill loses nothing
            file.write(_json_line(line))


def read_step_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of the file; none if there is none, and none from one that was cut off or damaged on."""
    lines = []
    if path.exists():
        for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                line = json.loads(text)
            except ValueError:
                break
            if not (isinstance(line, dict) and isinstance(line.get("step"), int)):
                break
            lines.append(line)
    return lines


def _json_line(line: dict[str, Any]) -> str:
    return json.dumps(line) + "\n"
