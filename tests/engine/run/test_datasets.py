"""engine/run/datasets.py: the keys of a configuration reach the data sets."""

import json

import pytest
import torch

from data import DatasetError
from data.transforms import RandomShortSide
from engine.run.config import load_config
from engine.run.datasets import evaluation_set, prepare_data, training_set
from engine.run.distributed import Processes


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


def generated(config_file, tmp_path, *overrides):
    """Image counts of the splits after `prepare_data`."""
    small = "data.generate={train: 4, val: 2, test: 1, image_size: 64, seed: 0}"
    config = load_config(config_file, [f"data.root={tmp_path}/generated", small, *overrides])
    prepare_data(config, Processes(0, 1, torch.device("cpu")))
    files = (tmp_path / "generated/annotations").iterdir()
    return {path.stem.removeprefix("instances_"): len(json.loads(path.read_text())["images"]) for path in files}


def test_a_split_that_is_trained_and_validated_on_has_the_images_of_the_training(config_file, tmp_path):
    assert generated(config_file, tmp_path, "data.val_split=train") == {"train": 4}


def test_splits_of_other_parameters_are_not_mixed(config_file, tmp_path):
    assert generated(config_file, tmp_path) == {"train": 4, "val": 2}
    (tmp_path / "generated/annotations/instances_val.json").unlink()
    with pytest.raises(DatasetError, match=r"instances_train\.json: exists: seed 0, not 5; choose another folder"):
        generated(config_file, tmp_path, "data.generate.seed=5")
    assert generated(config_file, tmp_path) == {"train": 4, "val": 2}


def test_a_split_of_the_users_own_stays_beside_generated_ones(config_file, tmp_path):
    assert generated(config_file, tmp_path) == {"train": 4, "val": 2}
    own = tmp_path / "generated/annotations/instances_own.json"
    own.write_text('{"images": [], "annotations": [], "categories": []}')
    assert generated(config_file, tmp_path, "data.val_split=own") == {"train": 4, "val": 2, "own": 0}
