"""Outputs that never replace a file of the user: folders that know what was written there, and files that are named."""

import json
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

LIST_NAME = ".written-here.jsonl"
HEADER = {"about": "files written to this folder by a program; it replaces these and no others"}


class OutputError(ValueError):
    """An output that would replace something of the user's: one line with the file and the remedy."""

    exit_status = 2


class OutputFolder:
    """A folder for results, with a list of the files that were written there.

    The list grows before the files are written, so that what an interrupted program left is on it.

    Args:
        root: made when something is claimed.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def check(self, names: Iterable[str], inputs: Iterable[str | Path] = (), replace: bool = True) -> None:
        """Refuses to write files of these names where that would replace what was not written here; writes nothing.

        Args:
            names: relative paths with "/".
            inputs: files that are read for what is written; none of them is replaced, listed or not.
            replace: whether files on the list may be replaced.
        Raises:
            OutputError: names the first file that is in the way.
        """
        names = list(names)
        self._check_folders({PurePosixPath(name).parent for name in names})
        existing = [name for name in names if os.path.lexists(self.root / name)]
        if not existing:
            return
        listed = self.listed()  # read after the look at the files: another process lists its files before it writes
        read = {identity for path in inputs for identity in _identities(path)}
        for name in existing:
            path = self.root / name
            if name not in listed:
                raise OutputError(
                    f"{path}: exists and was not written there by this program; choose another folder, or move it away"
                )
            if not read.isdisjoint(_identities(path, follow=False)):
                raise OutputError(f"{path}: is read for what would be written there; choose another folder")
            if not replace:
                raise OutputError(f"{path}: exists from before; replace it with --overwrite, or choose another folder")

    def claim(self, names: Iterable[str], inputs: Iterable[str | Path] = (), replace: bool = True) -> None:
        """Puts names on the list, after `check`. Raises OSError where the folder cannot be written."""
        names = list(names)
        self.check(names, inputs, replace)
        listed = self.listed()
        self.root.mkdir(parents=True, exist_ok=True)
        lines: list[object] = [] if os.path.exists(self._list) and self._list.stat().st_size else [HEADER]
        lines += [name for name in dict.fromkeys(names) if name not in listed]
        # Appended at once: processes that fill the folder together lose nothing of each other. The empty line ends one
        # that a kill cut off.
        descriptor = os.open(self._list, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write("\n" + "".join(f"{json.dumps(line)}\n" for line in lines))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            error.filename = str(self._list)  # a descriptor has no name
            raise

    def listed(self) -> set[str]:
        """Names on the list. Raises OutputError where a file of another origin has the list's name."""
        if not os.path.lexists(self._list):
            return set()
        status = os.lstat(self._list)
        lines = []
        if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
            lines = self._list.read_text(encoding="utf-8", errors="replace").splitlines()
        entries = [entry for line in lines if (entry := _entry(line)) is not None]
        if status.st_size and HEADER not in entries:
            raise OutputError(f"{self._list}: is not the list that this program keeps; choose another folder")
        return {entry for entry in entries if isinstance(entry, str)}

    def entries(self) -> set[str]:
        """Real paths of the names on the list, links among them not followed."""
        root = os.path.realpath(self.root)
        return {os.path.join(root, name) for name in self.listed()}

    def discard(self, names: Iterable[str]) -> None:
        """Removes those of the names that are on the list."""
        listed = self.listed()
        for name in names:
            if name in listed:
                (self.root / name).unlink(missing_ok=True)

    @property
    def _list(self) -> Path:
        return self.root / LIST_NAME

    def _check_folders(self, parents: Iterable[PurePosixPath]) -> None:
        """Every folder that is written to must be below the root, also when links are followed."""
        root = Path(os.path.realpath(self.root))
        for parent in sorted({folder for path in parents for folder in (path, *path.parents)}):
            folder = self.root / parent
            if folder != self.root and os.path.lexists(folder) and not folder.is_dir():
                raise OutputError(f"{folder}: is in the way of a folder; choose another one, or move it away")
            if not Path(os.path.realpath(folder)).is_relative_to(root):
                raise OutputError(f"{folder}: leads out of {self.root}; choose another folder")


def refuse_inputs(outputs: Iterable[str | Path | None], inputs: Iterable[str | Path]) -> None:
    """Refuses files to write (None: nothing) that are, or reach through links, one to be read, or each other.

    Raises:
        OutputError: names the first such file.
    """
    named = [Path(path) for path in outputs if path is not None]
    if len({os.path.realpath(path) for path in named}) < len(named):
        raise OutputError(f"{named[0]}: two results would be written to one file; give each its own name")
    existing = {path: set(_identities(path)) for path in named if os.path.lexists(path)}
    if existing:
        read = {identity for path in inputs for identity in _identities(path)}
        for path, identities in existing.items():
            if not identities.isdisjoint(read):
                raise OutputError(f"{path}: is an input, or a link to one; write to another file")


def require_writable(outputs: Iterable[str | Path | None]) -> None:
    """Refuses files to write (None: nothing) that could not be written, before work that takes long; makes nothing.

    Raises:
        OutputError: names the first that is a folder, or whose nearest existing folder cannot be written to.
    """
    for path in (Path(each) for each in outputs if each is not None):
        if path.is_dir():
            raise OutputError(f"{path}: is a folder; name a file")
        folder = next(parent for parent in path.absolute().parents if os.path.lexists(parent))
        if not folder.is_dir():
            raise OutputError(f"{path}: cannot be written, as {folder} is no folder; choose another place")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise OutputError(f"{path}: cannot be written, as {folder} is write-protected; choose another place")


def _identities(path: str | Path, follow: bool = True) -> Iterator[tuple[int, int]]:
    """(device, inode) of a file and of every link on the way to it; hard links of a file have the same."""
    for _ in range(40):  # links, as many as Linux follows
        try:
            status = os.lstat(path)
            yield status.st_dev, status.st_ino
            if not follow or not stat.S_ISLNK(status.st_mode):
                return
            path = os.path.join(os.path.dirname(path), os.readlink(path))
        except OSError:
            return


def _entry(line: str) -> object:
    try:
        return json.loads(line)
    except ValueError:
        return None
