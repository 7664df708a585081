"""Archives of a data set from the net to disk: resumed where a part is there, checked, unpacked, renamed into place."""

import hashlib
import os
import shutil
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from data.output_folder import OutputFolder
from engine.run.progress import progress

CHUNK = 2**20  # bytes
TIMEOUT = 60  # seconds without a byte


class DownloadError(RuntimeError):
    """A download that did not succeed; the message is one line for the user."""

    exit_status = 1


@dataclass(frozen=True)
class Archive:
    """A ZIP file and what is wanted of it.

    Attributes:
        path: below the server's address.
        size, unpacked: bytes of the file, and of its wanted members (about).
        md5: checksum of the file.
        members: files or folders in it that end up at the same place below the root, each at once.
    """

    path: str
    size: int
    unpacked: int
    md5: str
    members: tuple[str, ...]

    def is_unpacked(self, root: Path) -> bool:
        return all((root / member).exists() for member in self.members)

    def partial(self, root: Path) -> Path:
        return root / f"{Path(self.path).name}.part"


COCO_SERVER = "http://images.cocodataset.org"
COCO_2017 = {
    "annotations": Archive(
        "annotations/annotations_trainval2017.zip",
        252_907_541,
        470_000_000,
        "f4bbac642086de4f52a3fdda2de5fa2c",
        ("annotations/instances_train2017.json", "annotations/instances_val2017.json"),
    ),
    "val": Archive("zips/val2017.zip", 815_585_330, 820_000_000, "442b8da7639aecaf257c1dceb8ba8c80", ("val2017",)),
    "train": Archive(
        "zips/train2017.zip", 19_336_861_798, 19_400_000_000, "cced6f7f71b7629ddf16f17bbcfab6b2", ("train2017",)
    ),
}


def disk_need(archives: Iterable[Archive], root: Path) -> int:
    """Bytes that must be free for what is not done yet: each archive is deleted when it is unpacked."""
    kept = peak = 0
    for archive in archives:
        if archive.is_unpacked(root):
            continue
        partial = archive.partial(root)
        present = partial.stat().st_size if partial.exists() else 0
        peak = max(peak, kept + archive.size + archive.unpacked - present)
        kept += archive.unpacked - present
    return peak


def fetch_archives(archives: Sequence[Archive], root: Path, server: str) -> None:
    """Downloads, checks and unpacks the archives that are not unpacked yet.

    What exists under its final name is complete; an interrupted download continues where it stopped.

    Raises:
        DownloadError: too little disk, no connection, or a file that differs from the published one.
        OutputError: a file of another origin has the name of one that is downloaded.
    """
    root.mkdir(parents=True, exist_ok=True)
    need, free = disk_need(archives, root), shutil.disk_usage(root).free
    if need > free:
        raise DownloadError(f"{root}: needs {need / 1e9:.1f} GB of disk, and {free / 1e9:.1f} GB are free; make room")
    todo = [archive.partial(root) for archive in archives if not archive.is_unpacked(root)]
    OutputFolder(root).claim([path.name for partial in todo for path in (partial, _scratch(partial))])
    for archive in archives:
        if not archive.is_unpacked(root):
            partial = archive.partial(root)
            _download(f"{server.rstrip('/')}/{archive.path}", partial, archive)
            _check(partial, archive)
            _unpack(partial, archive, root)
            partial.unlink()


def _download(url: str, partial: Path, archive: Archive) -> None:
    start = partial.stat().st_size if partial.exists() else 0
    if start >= archive.size:
        return
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            if response.status != 206:  # the server does not continue, so the whole file comes
                start = 0
            with (
                open(partial, "ab" if start else "wb") as file,
                progress(total=archive.size, initial=start, desc=partial.stem, unit="B", unit_scale=True) as bar,
            ):
                while chunk := response.read(CHUNK):
                    file.write(chunk)
                    bar.update(len(chunk))
    except urllib.error.HTTPError as error:
        raise DownloadError(f"{url}: the server says {error.code} {error.reason}; try later, or --server") from error
    except (HTTPException, urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise DownloadError(f"{url}: no connection ({error}); run the same command again to continue") from error
    except OSError as error:
        raise DownloadError(
            f"{partial}: {error.strerror or error}; mend that and run the same command again"
        ) from error
    present = partial.stat().st_size
    if present < archive.size:
        raise DownloadError(
            f"{url}: ended after {present} of {archive.size} bytes; run the same command again to continue"
        )


def _check(partial: Path, archive: Archive) -> None:
    digest = hashlib.md5(usedforsecurity=False)
    with (
        open(partial, "rb") as file,
        progress(total=partial.stat().st_size, desc=f"check {partial.stem}", unit="B", unit_scale=True) as bar,
    ):
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            bar.update(len(chunk))
    if digest.hexdigest() != archive.md5:
        partial.unlink()
        raise DownloadError(
            f"{partial.stem}: its MD5 is {digest.hexdigest()}, not the published {archive.md5}; it is deleted, "
            "run the same command again"
        )


def _scratch(partial: Path) -> Path:
    return partial.with_suffix(".unpacking")


def _unpack(partial: Path, archive: Archive, root: Path) -> None:
    scratch = _scratch(partial)
    shutil.rmtree(scratch, ignore_errors=True)
    with zipfile.ZipFile(partial) as content:
        wanted = [
            name
            for name in content.namelist()
            if any(name == member or name.startswith(f"{member}/") for member in archive.members)
        ]
        with progress(total=len(wanted), desc=f"unpack {partial.stem}", unit="file") as bar:
            for name in wanted:
                content.extract(name, scratch)
                bar.update()
    for member in archive.members:
        (root / member).parent.mkdir(parents=True, exist_ok=True)
        if not (root / member).exists():
            os.replace(scratch / member, root / member)
    shutil.rmtree(scratch)
