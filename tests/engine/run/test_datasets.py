"""engine/run/datasets.py: the keys of a configuration reach the data sets."""

from data.transforms import RandomShortSide
from engine.run.config import load_config
from engine.run.datasets import evaluation_set, training_set


def test_both_sets_follow_the_keys_of_the_data(config_file):
    config = load_config(config_file, ["data.exif=ignore", "data.on_error=skip", "run.seed=3"])
    training, validation = training_set(config), evaluation_set(config, "val")
    assert training.exif == validation.exif == "ignore"
    assert training.on_error == validation.on_error == "skip"
    assert training.seed == 3


def test_training_images_keep_their_shape_where_short_sides_are_given(config_file):
    config = load_config(config_file, ["data.short_side=[96, 128]", "data.long_side=160", "data.augmentation=flip"])
    resize = training_set(config).transform.final_resize
    assert isinstance(resize, RandomShortSide)
    assert (resize.short_sides, resize.long_side) == ((96, 128), 160)
