"""The account of a conversion over every file it saw: used, or left out for a reason."""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from data.counts import counted
from data.formats.convert import LabelledImage
from data.image_files import files_below
from data.output_folder import OutputFolder

SHOWN = 3  # names of files for each reason


class FileTally:
    """Files of a conversion, each once however many links lead to it.

    Attributes:
        notes: lines about what was read otherwise than it was written down.
    """

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._seen: dict[str, Path] = {}  # by real path
        self._used: set[str] = set()

    def see(self, paths: Iterable[Path]) -> None:
        for path in paths:
            self._seen.setdefault(os.path.realpath(path), path)

    def use(self, *paths: Path) -> None:
        self.see(paths)
        self._used.update(map(os.path.realpath, paths))

    def lines(
        self, root: Path, splits: Mapping[str, Sequence[LabelledImage]], reason_of: Callable[[Path], tuple[str, str]]
    ) -> list[str]:
        """The count of files, a line for each reason why some were left out, and what is odd about the splits.

        Args:
            root: names of files are shown relative to it.
            splits: what was read.
            reason_of: says of a file that was not used what it is and why it was left out, as ("image", "in no list").
        """
        reasons: dict[tuple[str, str], list[str]] = defaultdict(list)
        for real, path in self._seen.items():
            if real not in self._used:
                reasons[reason_of(path)].append(str(path.relative_to(root) if path.is_relative_to(root) else path))
        left_out = len(self._seen) - len(self._used)
        lines = [f"files: {len(self._seen)} seen = {len(self._used)} used + {left_out} left out"]
        for (noun, reason), names in sorted(reasons.items()):
            lines.append(
                f"  {counted(len(names), noun)} {reason} ({', '.join(names[:SHOWN])}{', …' * (len(names) > SHOWN)})"
            )
        for split, images in splits.items():
            if not any(image.objects for image in images):
                lines.append(f"{split}: not one of its {counted(len(images), 'image')} has an object")
        copies = Counter(
            real for images in splits.values() for real in {os.path.realpath(image.path) for image in images}
        )
        if shared := sum(count > 1 for count in copies.values()):
            lines.append(f"in more than one of the splits {', '.join(splits)}: {counted(shared, 'image')}")
        return lines + self.notes


def unique_files(paths: Iterable[Path]) -> list[Path]:
    """The paths without those that lead to the file of an earlier one."""
    first: dict[str, Path] = {}
    for path in paths:
        first.setdefault(os.path.realpath(path), path)
    return list(first.values())


def inputs_below(folder: Path, output: Path | None) -> list[Path]:
    """The files below a folder (`files_below`) that no conversion to the output folder wrote."""
    written = OutputFolder(output).entries() if output else set()
    files = files_below(folder)
    if not written:
        return list(files)
    return [path for path in files if os.path.join(os.path.realpath(path.parent), path.name) not in written]
