import os
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data import CocoDetection, DatasetError, ImageError, pixel_folder, train_loader, train_transform
from data.images import read_image
from data.pixel_folder import PixelFolder


@pytest.fixture
def folder(tmp_path: Path) -> PixelFolder:
    return PixelFolder(tmp_path / "new" / "pixels")


@pytest.fixture
def never_decodes(monkeypatch):
    """Called, it lets everything that is decoded from then on fail."""

    def decode(*_: object) -> None:
        raise AssertionError("decoded")

    return lambda: monkeypatch.setattr(pixel_folder, "read_image", decode)


def save(path: Path, mode: str, orientation: int = 1) -> Path:
    shape = (48, 64, 3) if mode == "RGB" else (48, 64)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8), mode)
    image.save(path, exif=exif)
    return path


@pytest.mark.parametrize(("name", "mode"), [("a.jpg", "RGB"), ("a.jpg", "L"), ("a.png", "RGB"), ("ä 1.png", "L")])
@pytest.mark.parametrize("exif", ["turn", "ignore"])
def test_the_second_look_maps_the_same_pixels(folder, never_decodes, tmp_path, name, mode, exif):
    path = save(tmp_path / name, mode, orientation=6)
    size = (64, 48) if exif == "turn" else (48, 64)
    expected = read_image(path, size, exif=exif)
    first = folder.read(path, size, None, exif)
    never_decodes()
    second = folder.read(path, size, None, exif)
    for pixels in (first, second):
        assert torch.equal(pixels, expected)
        assert pixels.is_contiguous(memory_format=torch.channels_last) == expected.is_contiguous(
            memory_format=torch.channels_last
        )
        assert pixels.stride() == expected.stride()


def test_one_image_read_in_two_ways_is_kept_twice(folder, tmp_path):
    path = save(tmp_path / "a.jpg", "RGB", orientation=3)
    turned, stored = (folder.read(path, (48, 64), None, exif) for exif in ("turn", "ignore"))
    assert torch.equal(turned, stored.flip(1, 2)) and len(list(folder.folder.iterdir())) == 2


def test_a_changed_file_is_decoded_anew(folder, tmp_path):
    path = save(tmp_path / "a.png", "RGB")
    folder.read(path, (48, 64), None, "turn")
    Image.new("RGB", (64, 48), (1, 2, 3)).save(path)
    assert folder.read(path, (48, 64), None, "turn").unique().tolist() == [1, 2, 3]
    os.utime(path, ns=(0, 0))
    assert len(list(folder.folder.iterdir())) == 2
    folder.read(path, (48, 64), None, "turn")
    assert len(list(folder.folder.iterdir())) == 3


def test_pixels_that_were_cut_off_are_decoded_anew(folder, never_decodes, tmp_path):
    path = save(tmp_path / "a.png", "RGB")
    expected = folder.read(path, (48, 64), None, "turn").clone()
    (kept,) = folder.folder.iterdir()
    kept.write_bytes(kept.read_bytes()[:-1])
    assert torch.equal(folder.read(path, (48, 64), None, "turn"), expected)
    never_decodes()
    assert torch.equal(folder.read(path, (48, 64), None, "turn"), expected)


def test_who_writes_to_the_pixels_changes_them_for_nobody_else(folder, tmp_path):
    path = save(tmp_path / "a.png", "RGB")
    expected = folder.read(path, (48, 64), None, "turn").clone()
    folder.read(path, (48, 64), None, "turn").zero_()
    assert expected.any() and torch.equal(folder.read(path, (48, 64), None, "turn"), expected)


def test_a_bad_image_is_an_error_each_time_and_nothing_is_kept(folder, tmp_path):
    (tmp_path / "damaged.png").write_bytes(b"none")
    save(tmp_path / "large.png", "RGB")
    for name, reason in (
        ("missing.png", "no such image file"),
        ("damaged.png", "not of a format"),
        ("large.png", r"is 64×48, its annotation says 64×47"),
        ("with\0null", "unreadable image"),
    ):
        for _ in range(2):
            with pytest.raises(ImageError, match=reason):
                folder.read(tmp_path / name, (47, 64), None, "turn")
    assert not list(folder.folder.iterdir())


def test_threads_that_meet_the_same_image_agree(folder, tmp_path):
    path = save(tmp_path / "a.png", "RGB")
    expected = read_image(path)
    with ThreadPoolExecutor(8) as pool:
        looks = list(pool.map(lambda _: folder.read(path, (48, 64), None, "turn"), range(64)))
    assert all(torch.equal(look, expected) for look in looks)
    assert [kept.suffix for kept in folder.folder.iterdir()] == [".rgb"]


def test_a_folder_that_cannot_be_written_is_named_with_the_remedy(folder, tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(DatasetError, match=rf"{file}: cannot be written \(File exists\); let ALRP_PIXELS name"):
        PixelFolder(file)
    path = save(tmp_path / "a.png", "RGB")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pixel_folder, "write_atomically", fail)
    with pytest.raises(DatasetError, match=r"pixels/\w+\.rgb: cannot be written \(No space left on device\)"):
        folder.read(path, (48, 64), None, "turn")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_set_with_a_pixel_folder_gives_the_same_batches(write_coco, tmp_path, workers):
    root = write_coco([(i, 1 + i % 2, [3 * i, i, 10 + i, 12]) for i in range(10)], sizes=[(48, 64)] * 10)

    def batches(**options: object) -> list:
        dataset = CocoDetection(root, "train", transform=train_transform("ssd", (64, 96)), seed=4, **options)
        return list(islice(train_loader(dataset, 5, workers=workers), 5))  # of three epochs

    expected = batches()
    for _ in range(2):
        found = batches(pixel_folder=tmp_path / "pixels")
        assert all(torch.equal(images, others) for (images, _), (others, _) in zip(found, expected, strict=True))
    assert len(list((tmp_path / "pixels").iterdir())) == 10


def test_processes_that_decode_one_image_at_a_time_write_files_of_their_own(folder, tmp_path, monkeypatch):
    """Forked processes share what Python calls a thread's identifier."""
    path = save(tmp_path / "a.png", "RGB")
    names = tmp_path / "names"
    write = pixel_folder.write_atomically

    def noted(file: Path, content) -> None:
        with open(names, "a") as opened:
            opened.write(f"{file.name}\n")
        write(file, content)

    monkeypatch.setattr(pixel_folder, "write_atomically", noted)
    child = os.fork()
    if not child:
        folder.read(path, (48, 64), None, "turn")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    (kept,) = folder.folder.iterdir()
    kept.unlink()
    folder.read(path, (48, 64), None, "turn")
    assert len(set(names.read_text().splitlines())) == 2 and [kept] == list(folder.folder.iterdir())
