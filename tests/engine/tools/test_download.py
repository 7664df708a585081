"""Downloads from a server on this machine: resumed, checked, unpacked, and never half there."""

import hashlib
import io
import random
import runpy
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import engine.tools.download
from data.output_folder import LIST_NAME, OutputError
from engine.tools.download import COCO_2017, Archive, DownloadError, disk_need, fetch_archives


class Server(ThreadingHTTPServer):
    """Serves `files`; breaks off after `limit` bytes of a body; continues ranges unless `ranges` is False."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.limit, self.ranges, self.requests = {}, None, True, []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, wanted = self.server, self.headers.get("Range")
        server.requests.append((self.path, wanted))
        if self.path not in server.files:
            return self.send_error(404, "Not Found")
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and server.ranges else 0
        body = server.files[self.path][start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.limit])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def publish(server: Server, path: str, files: dict[str, bytes], members: tuple[str, ...]) -> Archive:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    body = content.getvalue()
    server.files[f"/{path}"] = body
    return Archive(path, len(body), sum(map(len, files.values())), hashlib.md5(body).hexdigest(), members)


@pytest.fixture
def images(server):
    noise = random.Random(0).randbytes
    files = {f"val/{index}.jpg": noise(3000) for index in range(20)}
    return publish(server, "zips/val.zip", files, ("val",))


def names(root: Path) -> list[str]:
    files = (path for path in root.rglob("*") if path.is_file() and path.name != LIST_NAME)
    return sorted(path.relative_to(root).as_posix() for path in files)


def test_only_what_is_wanted_is_unpacked_and_nothing_else_stays(server, tmp_path):
    wanted = ("annotations/a.json", "annotations/b.json")
    archive = publish(server, "x/ann.zip", {**dict.fromkeys(wanted, b"{}"), "annotations/captions.json": b"["}, wanted)
    fetch_archives([archive], tmp_path, server.url)
    assert names(tmp_path) == list(wanted)
    fetch_archives([archive], tmp_path, server.url)
    assert len(server.requests) == 1


@pytest.mark.parametrize("ranges", [True, False])
def test_an_interrupted_download_continues(server, images, tmp_path, ranges):
    server.limit, server.ranges = 20_000, ranges
    with pytest.raises(DownloadError, match=r"again to continue"):
        fetch_archives([images], tmp_path, server.url)
    assert names(tmp_path) == ["val.zip.part"] and (tmp_path / "val.zip.part").stat().st_size == 20_000
    server.limit = None
    fetch_archives([images], tmp_path, server.url)
    assert len(names(tmp_path)) == 20
    assert server.requests[-1] == ("/zips/val.zip", "bytes=20000-")


def test_a_damaged_file_is_deleted_and_said(server, images, tmp_path):
    body = bytearray(server.files["/zips/val.zip"])
    body[500] ^= 1
    server.files["/zips/val.zip"] = bytes(body)
    with pytest.raises(DownloadError, match=rf"val\.zip: its MD5 is \w+, not the published {images.md5}"):
        fetch_archives([images], tmp_path, server.url)
    assert names(tmp_path) == []


def test_an_unpacking_that_was_interrupted_starts_again(server, images, tmp_path, monkeypatch):
    extract, count = zipfile.ZipFile.extract, 0

    def interrupted(*arguments):
        nonlocal count
        count += 1
        if count == 5:
            raise KeyboardInterrupt
        return extract(*arguments)

    monkeypatch.setattr(zipfile.ZipFile, "extract", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch_archives([images], tmp_path, server.url)
    assert not (tmp_path / "val").exists()
    fetch_archives([images], tmp_path, server.url)
    assert len(names(tmp_path)) == 20 and len(server.requests) == 1


@pytest.mark.parametrize("name", ["val.zip.part", "val.zip.unpacking/precious.txt"])
def test_files_of_the_user_are_not_taken_for_parts(server, images, tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(OutputError, match="not written there"):
        fetch_archives([images], tmp_path, server.url)
    assert names(tmp_path) == [name] and (tmp_path / name).read_text() == "mine"


def test_servers_that_do_not_have_it_or_are_not_there(server, images, tmp_path):
    server.files.clear()
    with pytest.raises(DownloadError, match="404"):
        fetch_archives([images], tmp_path, server.url)
    with pytest.raises(DownloadError, match="no connection"):
        fetch_archives([images], tmp_path, "http://127.0.0.1:1")


def test_too_little_disk_is_said_before_anything_is_loaded(server, images, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(DownloadError, match=r"needs 0\.0 GB of disk"):
        fetch_archives([images], tmp_path, server.url)
    assert server.requests == []


def test_the_disk_need_counts_what_is_there_already(tmp_path):
    archives = list(COCO_2017.values())
    train = COCO_2017["train"]
    everything = sum(archive.unpacked for archive in archives)
    assert disk_need(archives, tmp_path) == everything + train.size
    train.partial(tmp_path).write_bytes(bytes(1000))
    assert disk_need(archives, tmp_path) == everything + train.size - 1000
    (tmp_path / "train2017").mkdir()
    val = COCO_2017["val"]
    assert disk_need(archives, tmp_path) == COCO_2017["annotations"].unpacked + val.unpacked + val.size


def test_the_command_says_its_need_first_and_ends_complete(server, tmp_path, monkeypatch, capsys):
    files = {"val2017/1.jpg": b"x"}
    splits = {
        "annotations": publish(server, "ann.zip", {"annotations/v.json": b"{}"}, ("annotations/v.json",)),
        "val": publish(server, "val.zip", files, ("val2017",)),
        "train": Archive("train.zip", 10**18, 10**18, "", ("train2017",)),
    }
    monkeypatch.setattr(engine.tools.download, "COCO_2017", splits)
    script = Path(__file__).resolve().parents[3] / "scripts" / "download_coco.py"

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", [str(script), "--output", str(tmp_path), "--server", server.url, *arguments])
        runpy.run_path(str(script), run_name="__main__")

    call("--splits", "val")
    lines = capsys.readouterr().out.splitlines()
    assert "needs" in lines[0] and "are free" in lines[0] and lines[-1].endswith("complete")
    assert names(tmp_path) == ["annotations/v.json", "val2017/1.jpg"]
    with pytest.raises(SystemExit) as stop:
        call()
    assert stop.value.code == 1
    assert capsys.readouterr().err.count("error: ") == 1
