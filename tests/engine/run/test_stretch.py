"""Images whose shape a configuration changes: by how much, how many, and what keeps it."""

import json

import pytest

from data import CocoDetection
from engine.run.config import parse_config
from engine.run.stretch import stretch_note


@pytest.fixture
def dataset(tmp_path):
    """Four images, of which none is square but the last."""
    return of_sizes(tmp_path, [(480, 640), (640, 480), (300, 600), (512, 512)])


def of_sizes(tmp_path, sizes):
    """A data set of which only the sizes are looked at."""
    images = [
        {"id": i, "height": height, "width": width, "file_name": f"{i}.jpg"} for i, (height, width) in enumerate(sizes)
    ]
    document = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "cat"}]}
    for name in ("annotations", "train"):
        (tmp_path / name).mkdir()
    (tmp_path / "annotations/instances_train.json").write_text(json.dumps(document))
    return CocoDetection(tmp_path, "train")


def test_a_square_stretches_what_is_not(dataset):
    config = parse_config({"data": {"image_size": 512}}, "mine.yaml")
    # 640 / 480 = 1.33 twice, 600 / 300 = 2; short sides are 3/4, 3/4, 1/2 and 1 of the long ones, median 3/4
    expected = "stretches 3 of 4 images, by 1.33 (median) to 2.00 of width against height; "
    assert stretch_note(dataset, config, training=True) == (
        f"training {expected}data.short_side=384 data.long_side=512 keeps their shape"
    )
    assert stretch_note(dataset, config, training=False) == (
        f"evaluation {expected}evaluation.short_side=384 evaluation.long_side=512 keeps their shape"
    )


def test_a_fixed_size_fits_images_of_its_own_shape_only(dataset):
    config = parse_config({"data": {"image_size": [384, 512]}}, "mine.yaml")
    # upright 3:4 becomes 4:3, 16/9; 2:1 becomes 4:3, 1.5; 1:1 becomes 4:3
    assert "stretches 3 of 4 images, by 1.50 (median) to 1.78 " in stretch_note(dataset, config, training=True)


def test_crops_stretch_nothing(dataset):
    config = parse_config({"data": {"image_size": 256, "augmentation": "crop"}}, "mine.yaml")
    assert stretch_note(dataset, config, training=True) is None
    assert stretch_note(dataset, config, training=False) is None


@pytest.mark.parametrize("short_side", [384, [320, 400]])
def test_limits_of_the_sides_stretch_nothing(dataset, short_side):
    sides = {"short_side": short_side, "long_side": 512}
    config = parse_config({"data": sides, "evaluation": {"short_side": 33, "long_side": 100}}, "mine.yaml")
    assert stretch_note(dataset, config, training=True) is None
    assert stretch_note(dataset, config, training=False) is None


def test_images_that_limits_of_the_sides_leave_no_pixel_of_are_named(tmp_path):
    # 2 · 512 / 1200 = 0.85 pixels; 3 · 512 / 700 = 2.2 become 2, which is rounding and no stretch to avoid
    dataset = of_sizes(tmp_path, [(48, 64), (2, 1200), (700, 3), (1200, 2)])
    sides = {"short_side": 384, "long_side": 512}
    config = parse_config({"data": sides, "evaluation": sides}, "mine.yaml")
    for training, work in ((True, "training"), (False, "evaluation")):
        assert stretch_note(dataset, config, training) == (
            f"{work} resizes 2 images to a side of less than a pixel, the first {tmp_path}/train/1.jpg (image id 1, "
            "1200×2); leave such images out, or cut them"
        )
