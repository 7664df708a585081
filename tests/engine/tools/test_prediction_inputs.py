"""`predict` takes what people hold an image in, alike, and refuses everything else."""

import numpy as np
import pytest
import torch
from PIL import Image

from data import ImageError
from engine import load_detector, predict

CLASSES = ["a", "b"]


@pytest.fixture(scope="module")
def detector_and_info(tmp_path_factory, write_checkpoint):
    return load_detector(write_checkpoint(tmp_path_factory.mktemp("inputs"), CLASSES, thresholds=[0.0, 0.0]))


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (60, 90, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def forms(pixels, tmp_path_factory):
    """The same image in every form."""
    file = tmp_path_factory.mktemp("forms") / "image.png"
    Image.fromarray(pixels).save(file)
    channels_first = torch.from_numpy(pixels).permute(2, 0, 1)
    read_only = pixels.copy()
    read_only.flags.writeable = False
    return {
        "path": file,
        "name": str(file),
        "PIL": Image.fromarray(pixels),
        "PIL RGBA": Image.fromarray(pixels).convert("RGBA"),
        "opened": Image.open(file),
        "array": pixels,
        "array backwards": pixels[::-1].copy()[::-1],
        "array of BGR": pixels[..., ::-1].copy()[..., ::-1],
        "array read-only": read_only,
        "uint8": channels_first,
        "uint8 contiguous": channels_first.contiguous(),
        "float32": channels_first / 255,
        "float64": channels_first.double() / 255,
        "with gradient": (channels_first / 255).requires_grad_(),
    }


def test_every_form_of_an_image_gives_the_same(detector_and_info, forms):
    expected = predict(*detector_and_info, forms["path"])
    assert len(expected["scores"]) > 5
    for form, image in forms.items():
        for name, value in predict(*detector_and_info, image).items():
            assert torch.equal(value, expected[name]), (form, name)


def test_of_a_list_each(detector_and_info, forms):
    images = [forms["path"], forms["array"][:, :50], forms["float32"]]
    for kind in (list, tuple):
        found = predict(*detector_and_info, kind(images))
        for one, image in zip(found, images, strict=True):
            assert torch.equal(one["boxes"], predict(*detector_and_info, image)["boxes"])
    assert predict(*detector_and_info, []) == []


def test_pil_images_are_turned_as_files_are(detector_and_info, pixels, tmp_path):
    tags = Image.Exif()
    tags[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=tags)
    expected = predict(*detector_and_info, tmp_path / "turned.png")
    with Image.open(tmp_path / "turned.png") as image:
        assert torch.equal(predict(*detector_and_info, image)["boxes"], expected["boxes"])
    assert expected["boxes"][:, 3].max() > 60  # 90 pixels high when upright


FLOATS = torch.full((3, 8, 8), 0.5)
REFUSED = {
    "none": (None, "NoneType"),
    "number": (3, "int"),
    "bytes": (b"image", "bytes"),
    "nested list": ([[1, 2], [3, 4]], "image 0: list"),
    "dict": ({}, "dict"),
    "float array": (np.zeros((8, 8, 3), np.float32), "float32"),
    "int array": (np.zeros((8, 8, 3), np.int64), "int64"),
    "array of bools": (np.zeros((8, 8, 3), bool), "bool"),
    "grey array": (np.zeros((8, 8), np.uint8), "(8, 8)"),
    "RGBA array": (np.zeros((8, 8, 4), np.uint8), "(8, 8, 4)"),
    "array channels first": (np.zeros((3, 8, 8), np.uint8), "(3, 8, 8)"),
    "array of no pixel": (np.zeros((0, 8, 3), np.uint8), "(0, 8, 3)"),
    "batch array": (np.zeros((1, 8, 8, 3), np.uint8), "(1, 8, 8, 3)"),
    "tensor of 0..255 floats": (FLOATS * 255, "from 127.5 to 127.5"),
    "normalised tensor": (FLOATS - 1, "from -0.5"),
    "NaN": (FLOATS * torch.nan, "nan"),
    "int tensor": (torch.zeros(3, 8, 8, dtype=torch.int64), "int64"),
    "bool tensor": (torch.zeros(3, 8, 8, dtype=torch.bool), "bool"),
    "batch tensor": (torch.zeros(1, 3, 8, 8), "(1, 3, 8, 8)"),
    "tensor channels last": (torch.zeros(8, 8, 3), "(8, 8, 3)"),
    "grey tensor": (torch.zeros(1, 8, 8), "(1, 8, 8)"),
    "tensor of no pixel": (torch.zeros(3, 0, 8), "(3, 0, 8)"),
    "second of a list": ([FLOATS, FLOATS * 3], "image 1: float tensor"),
}


@pytest.mark.parametrize("form", REFUSED)
def test_anything_else_is_refused_by_name(detector_and_info, form):
    image, named = REFUSED[form]
    with pytest.raises(ImageError) as refused:
        predict(*detector_and_info, image)
    assert named in str(refused.value) and "expected a path" in str(refused.value)


def test_files_that_cannot_be_read_are_named(detector_and_info, tmp_path):
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(ImageError, match=r"image 0: .*text\.jpg: unreadable image"):
        predict(*detector_and_info, [tmp_path / "text.jpg"])
    with pytest.raises(ImageError, match=r"gone\.jpg: no such image file"):
        predict(*detector_and_info, "gone.jpg")
    floating = Image.new("F", (8, 8))
    with pytest.raises(ImageError, match="PIL image: unreadable image"):
        predict(*detector_and_info, floating)


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_thresholds_are_scores(detector_and_info, threshold):
    with pytest.raises(ValueError, match="must be a score from 0 to 1"):
        predict(*detector_and_info, FLOATS, threshold)
