"""scripts/benchmark.py systems at the smallest size: that it measures what it names, not how fast that is."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("torchvision")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from benchmarks import systems

from detector import build_detector

TINY = ["data.image_size=64", "data.batch_size=2", "optimizer.base_batch_size=2", "run.precision=float32"]


def test_every_system_has_time_parameters_and_memory(monkeypatch):
    monkeypatch.setattr(systems, "REPETITIONS", 1)
    monkeypatch.setattr(systems, "in_own_process", systems.memory_of_steps)  # a process of its own takes seconds
    names = {"aLRP Loss": ["bccd_r18_alrp"], "Faster R-CNN": ["bccd_r18_faster_rcnn", "model.fc_channels=64"]}
    suite = systems.Suite(names, TINY, num_classes=3)
    rows = systems.benchmark_systems(suite, "cpu")
    assert [row["system"] for row in rows] == list(names)
    assert rows[1]["config"] == "bccd_r18_faster_rcnn.yaml model.fc_channels=64"
    for row in rows:
        assert row["images/s"] == pytest.approx(2 / (row["ms"] / 1e3))
        assert row["ratio"] == row["ms"] / rows[0]["ms"]
        detector = build_detector(suite.config(row["system"]), 3, load_weights=False)
        count = sum(parameter.numel() for parameter in detector.parameters())
        assert row["million parameters"] == count / 1e6
        if sys.platform == "linux":  # weights, gradients and momentum are there at once
            assert row["peak MiB"] > 3 * 4 * count / 2**20


@pytest.mark.parametrize("suite", [systems.IN_SMALL, systems.AS_PUBLISHED], ids=["small", "published"])
def test_the_systems_are_of_one_size_of_batch(suite):
    configs = [suite.config(system) for system in suite.systems]
    assert len({(config.data.batch_size, config.data.train_size, config.data.short_sides) for config in configs}) == 1
    assert len({(config.model.family, config.loss) for config in configs}) == len(configs)
