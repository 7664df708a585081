"""Paths that tools wrote on another machine, of which the last parts may be right here."""

from collections.abc import Iterator
from pathlib import PurePosixPath


def last_parts(path: str) -> Iterator[str]:
    """The path without its beginning, "/" and "..", and then without one folder after the other, down to the name."""
    parts = [part for part in PurePosixPath(slashes(path)).parts if part not in ("/", "..")]
    return ("/".join(parts[first:]) for first in range(len(parts)))


def slashes(path: str) -> str:
    """The path as it is written elsewhere than on Windows."""
    return path.replace("\\", "/")
