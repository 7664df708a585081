"""The parts of scripts/benchmark.py metrics on a few images."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "scripts"))

from benchmarks import metrics


def test_peers_and_ours_agree_on_the_files_that_are_made(tmp_path):
    files = metrics.write_files(tmp_path, num_images=6)
    ours = metrics.ours(*files)
    assert 0 < ours[0] < 1
    for peer in filter(metrics.is_installed, metrics.PEERS):
        assert metrics.with_peer(peer, *files) == ours


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc")
def test_memory_is_that_of_the_command_alone(tmp_path):
    held = bytearray(400 * 2**20)  # would count where a process is forked from this one
    assert 0.01 < metrics.peak_of_command(*metrics.write_files(tmp_path, num_images=2)) < 0.2
    assert len(held) > 0
