"""The room that loader processes need in /dev/shm, compared with what is there before anything starts."""

import shutil
from collections import namedtuple

import pytest

from engine.run.config import ConfigError, load_config
from engine.run.datasets import evaluation_set, training_set
from engine.run.shared_memory import require_shared_memory

Usage = namedtuple("Usage", "total used free")
# two workers make four batches each ahead, one more is in use; evaluation: 4 images of 64×64; training: 4 as well
BATCH = 4 * 3 * 64 * 64


@pytest.fixture
def require(monkeypatch, config_file):
    """require(free bytes, *overrides) for two loader processes."""

    def call(free: int, *overrides: str, train: bool = True) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(free, 0, free))
        monkeypatch.setattr("data.loader.usable_cpus", lambda: 8)
        config = load_config(config_file, ["data.workers=2", *overrides])
        require_shared_memory(config, training_set(config) if train else None, evaluation_set(config, "val"))

    return call


def test_as_much_as_is_needed_is_enough(require):
    require(2 * 9 * BATCH)
    with pytest.raises(
        ConfigError, match=r"/dev/shm: .* MB are free, and data\.workers=2 .*--shm-size=.*data\.workers=1"
    ):
        require(2 * 9 * BATCH - 1)
    with pytest.raises(ConfigError, match=r"data\.workers=0"):
        require(BATCH)


def test_without_workers_nothing_is_needed(require):
    require(0, "data.workers=0")


def test_an_evaluation_alone_needs_its_own_part(require):
    require(9 * BATCH, train=False)
    with pytest.raises(ConfigError):
        require(9 * BATCH - 1, train=False)


def test_every_process_of_the_host_needs_its_share_of_a_batch(require, monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("WORLD_SIZE", "4")
    need = 2 * (9 * BATCH + (2 * 4 + 1) * BATCH // 4)  # a quarter of the training batch in each
    require(need)
    with pytest.raises(ConfigError, match="4 loader processes"):
        require(need - 1)


@pytest.mark.parametrize(
    ("augmentation", "side"),
    [("flip", 96), ("ssd", 192)],  # images as square as they come, or crops of any shape up to the long side
)
def test_images_of_their_own_shape_count_at_their_largest(require, augmentation, side):
    overrides = ("data.short_side=[64,96]", "data.long_side=192", f"data.augmentation={augmentation}")
    need = 9 * BATCH + 9 * 4 * 3 * side**2
    require(need, *overrides)
    with pytest.raises(ConfigError):
        require(need - 1, *overrides)
