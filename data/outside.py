"""Files that a data set names outside of its own folder."""

import os
from collections.abc import Iterable
from pathlib import Path

from data.errors import DatasetError


def outside_line(folder: Path, paths: Iterable[Path], inside_only: bool = False) -> str | None:
    """One line on the images that lie outside of a folder, None where there are none.

    Links are followed with `inside_only` alone: those that the user or a converter made are not worth a line.

    Args:
        folder: what the user named.
        paths: images, as a data set names them.
        inside_only: refuse them.
    Raises:
        DatasetError: there are some, and `inside_only`.
    """
    resolve = _real_path if inside_only else os.path.abspath
    root = os.path.join(resolve(folder), "")
    outside = [path for path in map(resolve, paths) if not path.startswith(root)]
    if not outside:
        return None
    where = os.path.commonpath([os.path.dirname(path) for path in outside])
    lie = "1 image lies" if len(outside) == 1 else f"{len(outside)} images lie"
    line = f"{folder}: {lie} outside of it, in {where} (the first: {os.path.basename(outside[0])})"
    if inside_only:
        raise DatasetError(
            f"{line}; move them into the folder (converters with --copy: copy them), or leave out --inside-only"
        )
    return f"{line}; --inside-only refuses them"


def _real_path(path: Path) -> str:
    try:
        return os.path.realpath(path)
    except ValueError:  # a name that no file can have
        return os.path.abspath(path)
