"""Files that readers find whole or not at all."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO


def write_atomically(
    path: Path, write: Callable[[IO[bytes]], object], before_rename: Callable[[], None] | None = None
) -> None:
    """Calls `write` on a temporary file beside `path`, flushes it to disk and renames it, so no reader sees a part.

    The rename is flushed too: after a power cut there is the old file or the whole new one.

    Args:
        before_rename: called when the new content is on the disk and `path` still holds the old one.
    Raises:
        OSError: names `path` or its folder; what was there stays.
    """
    if path.is_dir():  # "." and "/" have no name to make a temporary one of
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        if before_rename is not None:
            before_rename()
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        error.filename = str(path)  # not the temporary name, which says nothing to the user
        if error.filename2 is not None:
            del error.filename2  # None would be printed
        raise
    finally:
        temporary.unlink(missing_ok=True)


def remove_temporaries(folder: Path) -> None:
    """Removes what writers that were killed left in a folder."""
    for file in folder.glob(".*.tmp"):
        file.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # folders cannot be opened there
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # disks that cannot flush a folder
            raise
    finally:
        os.close(descriptor)
