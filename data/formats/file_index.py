"""Files by their names without suffix, for formats in which the files of an image have one name."""

from collections.abc import Callable, Iterable
from pathlib import Path


class FileIndex:
    """Files by their names without suffix: as they are found, below a folder, and alone."""

    def __init__(self, paths: Iterable[Path], folder: Path) -> None:
        self._by_path: dict[str, list[Path]] = {}
        self._by_stem: dict[str, list[Path]] = {}
        for path in paths:
            for key in {str(path.with_suffix("")), name_below(path, folder)}:
                self._by_path.setdefault(key, []).append(path)
            self._by_stem.setdefault(path.stem, []).append(path)

    def named(self, name: str) -> list[Path]:
        """The files that have the name, with all its folders."""
        return self._by_path.get(name, [])

    def alone(self, stem: str, fits: Callable[[Path], bool] = lambda path: True) -> list[Path]:
        """The files of one folder that have the stem and fit, if no other folder has such files too."""
        found = [path for path in self._by_stem.get(stem, []) if fits(path)]
        return found if len({path.parent for path in found}) == 1 else []


def name_below(path: Path, folder: Path) -> str:
    """The path without its suffix, relative to the folder if it is there."""
    return (path.relative_to(folder) if path.is_relative_to(folder) else path).with_suffix("").as_posix()
