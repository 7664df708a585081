"""Crops at native scale: windows in training, whole images as they are in evaluation and in what is said of anchors."""

import pytest

from engine.run.config import parse_config
from engine.run.datasets import evaluation_set, evaluation_transform, training_resize, training_set


@pytest.fixture
def config(shapes):
    data = {"root": str(shapes), "train_split": "train", "val_split": "val", "image_size": [48, 32]}
    return parse_config({"data": data | {"augmentation": "crop"}}, "mine.yaml")


def test_training_sees_windows_and_evaluation_whole_images(config):
    (image, target), (window, part) = evaluation_set(config, "val")[0], training_set(config)[0, 0]
    assert window.shape == (3, 48, 32) and part["size"] == (48, 32)
    assert image.shape[-2:] == target["orig_size"] == target["size"] != (48, 32)


def test_a_window_depends_on_seed_epoch_and_image_alone(config):
    windows = training_set(config)
    first = windows[0, 3][0].clone()
    windows[0, 4]
    assert (windows[0, 3][0] == first).all()
    assert any((windows[epoch, 3][0] != first).any() for epoch in (1, 2))


def test_anchors_are_compared_with_objects_at_their_own_size(config):
    assert training_resize(config.data).output_size((300, 400)) == (300, 400)
    assert evaluation_transform(config).output_size((300, 400)) == (300, 400)


def test_evaluation_may_still_be_at_another_size(shapes):
    values = {"data": {"augmentation": "crop"}, "evaluation": {"short_side": 150, "long_side": 500}}
    assert evaluation_transform(parse_config(values, "mine.yaml")).output_size((300, 400)) == (150, 200)
