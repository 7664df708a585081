import io
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.errors import DatasetError, ImageError
from data.images import blank_images, read_file, read_image

RNG = np.random.default_rng(1)
RGB = RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (6, 9), dtype=np.uint8)
ALPHA = RNG.integers(0, 256, (6, 9), dtype=np.uint8)


def pixels(path: Path) -> np.ndarray:
    image = read_image(path, (6, 9))
    assert image.dtype == torch.uint8
    assert image.shape == (3, 6, 9)
    return image.permute(1, 2, 0).numpy()


def grey_as_rgb(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None], 3, axis=2)


def test_rgb_is_returned_as_stored(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    assert np.array_equal(pixels(tmp_path / "a.png"), RGB)


def test_grey(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.png")
    assert np.array_equal(pixels(tmp_path / "a.png"), grey_as_rgb(GREY))


def test_alpha_is_dropped_and_colours_kept(tmp_path: Path) -> None:
    Image.fromarray(np.dstack([RGB, ALPHA]), "RGBA").save(tmp_path / "rgba.png")
    assert np.array_equal(pixels(tmp_path / "rgba.png"), RGB)
    Image.fromarray(np.dstack([GREY, ALPHA]), "LA").save(tmp_path / "la.png")
    assert np.array_equal(pixels(tmp_path / "la.png"), grey_as_rgb(GREY))


@pytest.mark.parametrize("transparency", [None, 3, bytes([0, 10, 200, 255])])
def test_palette_with_and_without_transparency(tmp_path: Path, transparency: int | bytes | None) -> None:
    palette = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 8, 7]], dtype=np.uint8)
    indices = RNG.integers(0, 4, (6, 9), dtype=np.uint8)
    image = Image.fromarray(indices, "P")
    image.putpalette(palette.tobytes())
    options = {} if transparency is None else {"transparency": transparency}
    image.save(tmp_path / "a.png", **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(pixels(tmp_path / "a.png"), palette[indices])


def test_one_bit(tmp_path: Path) -> None:
    bits = GREY > 127
    Image.fromarray(bits).save(tmp_path / "a.png")
    assert np.array_equal(pixels(tmp_path / "a.png"), grey_as_rgb(bits * np.uint8(255)))


def test_sixteen_bit_grey_is_scaled_by_the_full_range(tmp_path: Path) -> None:
    values = RNG.integers(0, 65536, (6, 9), dtype=np.uint16)
    values[0, :4] = 0, 128, 129, 65535
    expected = np.rint(values / 65535 * 255).astype(np.uint8)
    for name in ("a.png", "a.tiff"):
        Image.fromarray(values).save(tmp_path / name)
        assert np.array_equal(pixels(tmp_path / name), grey_as_rgb(expected))
    Image.fromarray(values.astype(np.int32)).save(tmp_path / "i.tiff")
    assert np.array_equal(pixels(tmp_path / "i.tiff"), grey_as_rgb(expected))


def test_cmyk_jpeg_keeps_its_colours(tmp_path: Path) -> None:
    colour = np.full((6, 9, 3), (200, 40, 90), dtype=np.uint8)
    Image.fromarray(colour).convert("CMYK").save(tmp_path / "a.jpg", quality=100)
    assert Image.open(tmp_path / "a.jpg").mode == "CMYK"
    assert np.abs(pixels(tmp_path / "a.jpg").astype(int) - colour).max() <= 4


def test_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((6, 9, 3), value, dtype=np.uint8)) for value in (50, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert (pixels(tmp_path / "a.gif") == 50).all()


def save_with_orientation(path: Path, orientation: int, pixels: np.ndarray = RGB) -> np.ndarray:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif, **({"lossless": True} if path.suffix == ".webp" else {}))
    return pixels


SQUARE = RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8)
UPRIGHT = {  # EXIF 2.32, 4.6.4.A: where the stored first row and first column are on the upright image
    1: lambda p: p,
    2: lambda p: p[:, ::-1],  # top, right
    3: lambda p: p[::-1, ::-1],  # bottom, right
    4: lambda p: p[::-1],  # bottom, left
    5: lambda p: p.swapaxes(0, 1),  # left, top
    6: lambda p: np.rot90(p, -1),  # right, top
    7: lambda p: p[::-1, ::-1].swapaxes(0, 1),  # right, bottom
    8: lambda p: np.rot90(p),  # left, bottom
}


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_pixels_unless_the_size_fits_only_the_stored_image(
    tmp_path: Path, orientation: int, suffix: str
) -> None:
    path = tmp_path / f"a{suffix}"
    for stored in (RGB, SQUARE):
        save_with_orientation(path, orientation, stored)
        shown = UPRIGHT[orientation](stored)

        def read(size: tuple[int, int] | None, exif: str) -> np.ndarray:
            return read_image(path, size, exif=exif).permute(1, 2, 0).numpy()

        for exif, preferred in (("turn", shown), ("ignore", stored)):
            assert np.array_equal(read(None, exif), preferred)
            for image in (stored, shown):
                expected = preferred if stored.shape == shown.shape else image
                assert np.array_equal(read(image.shape[:2], exif), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_rule_of_old_runs_turns_only_what_fits_nothing_else(tmp_path: Path, orientation: int) -> None:
    path = tmp_path / "a.png"
    for stored in (RGB, SQUARE):
        save_with_orientation(path, orientation, stored)
        shown = UPRIGHT[orientation](stored)
        for size, expected in ((None, shown), (stored.shape[:2], stored)):
            assert np.array_equal(read_image(path, size, exif="legacy").permute(1, 2, 0).numpy(), expected)
        if shown.shape != stored.shape:
            assert np.array_equal(read_image(path, shown.shape[:2], exif="legacy").permute(1, 2, 0).numpy(), shown)


@pytest.mark.parametrize("tags", [b"Exif\0\0MM\0*garbage", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\x7f"])
def test_broken_exif_tags_are_passed_over(tmp_path: Path, tags: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg(24, 40, exif=tags))
    assert torch.equal(read_image(tmp_path / "a.jpg"), with_pillow_alone(tmp_path / "a.jpg"))


def test_another_size_than_annotated_is_an_error(tmp_path: Path) -> None:
    save_with_orientation(tmp_path / "a.png", 1)
    with pytest.raises(DatasetError, match=r"a\.png: the image is 9×6, its annotation says 6×9"):
        read_image(tmp_path / "a.png", (9, 6))
    with pytest.raises(DatasetError, match=r"the image is 9×6, its annotation says 90×60"):
        read_image(tmp_path / "a.png", (60, 90))


def jpeg(height: int = 64, width: int = 64, mode: str = "RGB", **options: object) -> bytes:
    smooth = np.linspace(0, 255, height * width).reshape(height, width, 1)
    noise = RNG.integers(-40, 40, (height, width, 3))
    buffer = io.BytesIO()
    Image.fromarray((smooth + noise).clip(0, 255).astype(np.uint8)).convert(mode).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def with_pillow_alone(path: Path) -> torch.Tensor:
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize(
    "options",
    [{}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 1, "quality": 30}, {"restart_marker_blocks": 2}],
    ids=lambda options: "-".join(options) or "plain",
)
def test_jpeg_has_the_pixels_that_pillow_decodes(tmp_path: Path, mode: str, options: dict) -> None:
    for height, width in ((64, 64), (37, 53), (1, 9)):
        (tmp_path / "a.jpg").write_bytes(jpeg(height, width, mode, **options))
        image = read_image(tmp_path / "a.jpg", (height, width))
        assert torch.equal(image, with_pillow_alone(tmp_path / "a.jpg"))
        assert image.permute(1, 2, 0).is_contiguous()


def test_jpeg_of_coco_has_the_pixels_that_pillow_decodes(shared: Path) -> None:
    files = sorted((shared / "data/coco_tiny/val2017").iterdir())
    assert len(files) == 80
    assert all(torch.equal(read_image(path), with_pillow_alone(path)) for path in files)


def test_the_name_does_not_say_the_format(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(jpeg())
    assert torch.equal(read_image(tmp_path / "a.png", (64, 64)), with_pillow_alone(tmp_path / "a.png"))
    Image.fromarray(RGB).save(tmp_path / "a.jpg", "PNG")
    assert np.array_equal(pixels(tmp_path / "a.jpg"), RGB)


def test_a_photo_of_a_turned_camera_is_shown_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    for orientation, turns in ((1, 0), (3, 2), (6, -1), (8, 1)):
        exif[0x0112] = orientation
        (tmp_path / "a.jpg").write_bytes(jpeg(24, 40, exif=exif))
        stored = with_pillow_alone(tmp_path / "a.jpg")
        assert torch.equal(read_image(tmp_path / "a.jpg"), stored.rot90(turns, (1, 2)))
        assert torch.equal(read_image(tmp_path / "a.jpg", exif="ignore"), stored)


def test_bytes_at_hand_are_decoded_without_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg())
    image, encoded = read_image(tmp_path / "a.jpg"), read_file(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").unlink()
    assert torch.equal(read_image(tmp_path / "a.jpg", encoded=encoded), image)
    with pytest.raises(ImageError, match=r"a\.jpg: unreadable image"):
        read_image(tmp_path / "a.jpg", encoded=encoded[:300])


def test_a_header_that_lies_about_the_size_claims_no_memory(tmp_path: Path) -> None:
    content = bytearray(jpeg())
    frame = content.index(b"\xff\xc0") + 5
    content[frame : frame + 4] = (65000).to_bytes(2, "big") * 2
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(ImageError, match="decompression bomb") as caught:
        read_image(tmp_path / "a.jpg", (64, 64))
    assert caught.value.kind == "oversized"


@pytest.mark.parametrize(
    "content", [b"", b"no image", jpeg()[:300], b"\x89PNG\r\n\x1a\n" + bytes(50)], ids=["empty", "text", "cut", "zeros"]
)
def test_unreadable_files_are_named_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(DatasetError, match=r"a\.jpg: unreadable image \(.+\)") as caught:
        read_image(tmp_path / "a.jpg")
    assert "\n" not in str(caught.value)
    assert "BytesIO" not in str(caught.value)


def test_missing_and_unknown_images_are_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"a\.jpg: no such image file"):
        read_image(tmp_path / "a.jpg")
    with pytest.raises(DatasetError, match="unreadable image"):
        read_image(tmp_path)
    os.mkfifo(tmp_path / "pipe.jpg")  # reading it would never end
    with pytest.raises(DatasetError, match=r"pipe\.jpg: unreadable image \(not a file\)"):
        read_image(tmp_path / "pipe.jpg")
    Image.fromarray(GREY.astype(np.float32)).save(tmp_path / "f.tiff")
    with pytest.raises(DatasetError, match=r"f\.tiff: unreadable image \(floating-point"):
        read_image(tmp_path / "f.tiff")
    Image.fromarray(np.full((6, 9), 70_000, dtype=np.int32)).save(tmp_path / "i.tiff")
    with pytest.raises(DatasetError, match=r"i\.tiff: unreadable image \(grey values beyond"):
        read_image(tmp_path / "i.tiff")


def test_blank_images_have_the_mean_colour() -> None:
    images = blank_images(2, 3, 5)
    assert images.shape == (2, 3, 3, 5)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert (images == torch.tensor([124, 116, 104])[:, None, None]).all()
