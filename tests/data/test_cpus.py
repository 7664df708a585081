"""The CPUs that a process may use, under the control groups of both versions as files of containers show them."""

import os

import pytest

from data import cache, cpus


@pytest.fixture
def usable(monkeypatch, tmp_path):
    """usable({file below /sys/fs/cgroup: its text}, text of /proc/self/cgroup) on eight CPUs."""

    def ask(files: dict[str, str], groups: str = "0::/\n") -> int:
        for name, text in files.items():
            path = tmp_path / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        (tmp_path / "self").write_text(groups)
        monkeypatch.setattr(cpus, "CGROUPS", tmp_path / "cgroup")
        monkeypatch.setattr(cpus, "PROC", tmp_path / "self")
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
        return cpus.usable_cpus()

    return ask


def test_without_a_quota_affinity_counts(usable):
    assert usable({}) == 8
    assert usable({"cpu.max": "max 100000\n"}) == 8
    assert usable({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, "3:cpu,cpuacct:/\n") == 8


@pytest.mark.parametrize(("limit", "count"), [("350000", 3), ("100000", 1), ("50000", 1), ("1600000", 8)])
def test_a_quota_counts_in_whole_cpus(usable, limit, count):
    assert usable({"cpu.max": f"{limit} 100000\n"}) == count


def test_the_tightest_of_nested_groups_counts(usable):
    files = {"a/cpu.max": "200000 100000\n", "a/b/cpu.max": "600000 100000\n", "other/cpu.max": "100000 100000\n"}
    assert usable(files, "0::/a/b\n") == 2


def test_version_one_names_its_controllers(usable):
    files = {"cpu,cpuacct/job/cpu.cfs_quota_us": "400000\n", "cpu,cpuacct/job/cpu.cfs_period_us": "100000\n"}
    assert usable(files, "5:memory:/elsewhere\n4:cpu,cpuacct:/job\n0::/\n") == 4


def test_a_container_mounts_its_group_as_the_root(usable):
    files = {"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}
    assert usable(files, "4:cpu:/docker/0123\n") == 3


def test_the_memory_of_a_container_counts(usable, tmp_path, monkeypatch):
    usable({"job/memory.max": "1000\n", "memory.max": "max\n"}, "0::/job\n")
    assert cache._available_memory() == 1000
    usable({"memory/docker/memory.limit_in_bytes": "500\n"}, "9:memory:/docker\n4:cpu:/\n0::/job\n")
    assert cache._available_memory() == 500
    files = {"memory.current": "700\n", "memory.stat": "anon 250\ninactive_file 400\n"}  # files that nobody reads
    usable({f"job/{name}": text for name, text in files.items()} | {"job/memory.max": "1000\n"}, "0::/job\n")
    assert cache._available_memory() == 700
    files = {"limit_in_bytes": "500\n", "usage_in_bytes": "450\n", "stat": "inactive_file 9\ntotal_inactive_file 50\n"}
    usable({f"memory/memory.{name}": text for name, text in files.items()}, "9:memory:/docker\n")
    assert cache._available_memory() == 100
    monkeypatch.setattr(cpus, "CGROUPS", tmp_path / "none")
    assert cache._available_memory() is None or cache._available_memory() > 1000


def test_a_system_without_control_groups_has_its_affinity(monkeypatch, tmp_path):
    monkeypatch.setattr(cpus, "PROC", tmp_path / "none")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1, 3, 5})
    assert cpus.usable_cpus() == 3
