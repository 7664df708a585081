"""The number of CPU threads: whence it comes, where it is written, and how threads wait."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from engine.run import threads
from engine.run.checkpoint import CheckpointError
from engine.run.config import load_config
from engine.run.datasets import training_set
from engine.run.distributed import join_processes
from engine.run.resume import recipe_facts, require_same_recipe
from engine.run.run_folder import RunFolder
from engine.run.threads import thread_count

ROOT = Path(__file__).resolve().parents[3]
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """PyTorch would take 16 threads, and the process may use 12 CPUs."""
    before = torch.get_num_threads()
    for name in ("OMP_NUM_THREADS", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(threads, "usable_cpus", lambda: 12)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 16)
    yield
    torch.set_num_threads(before)


def count(config_file, *overrides: str) -> int:
    return thread_count(load_config(config_file, list(overrides)).run)


def test_the_usable_cpus_are_shared_between_the_processes_of_a_host(config_file, monkeypatch):
    assert count(config_file) == 12
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "5")
    assert count(config_file) == 2
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "20")
    assert count(config_file) == 1


def test_pytorchs_own_number_is_the_most(config_file, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)  # whole cores of twelve hyperthreads
    assert count(config_file) == 6


def test_what_the_user_chose_counts(config_file, monkeypatch):
    assert count(config_file, "run.threads=40") == 40
    monkeypatch.setenv("OMP_NUM_THREADS", "16")
    assert count(config_file) == 16
    assert count(config_file, "run.threads=3") == 3


def test_joining_sets_the_threads(config_file, monkeypatch):
    monkeypatch.undo()
    with join_processes(load_config(config_file, ["run.threads=3"]).run):
        assert torch.get_num_threads() == 3


def test_the_run_folder_says_how_many_there_were(config_file, tmp_path):
    config = load_config(config_file)
    folder = RunFolder(config)
    folder.begin(config, 0, 0)
    written = folder.path / "config.yaml"
    assert config.run.threads is None and yaml.safe_load(written.read_text())["run"]["threads"] == 12
    assert load_config(written).run.threads == 12


def test_another_number_is_the_same_run(config_file, tmp_path, monkeypatch):
    """One that was killed before its first checkpoint, on a machine with more CPUs."""
    config = load_config(config_file)
    RunFolder(config).begin(config, 0, 0)
    monkeypatch.setattr(threads, "usable_cpus", lambda: 2)
    with pytest.raises(CheckpointError, match="no such checkpoint"):  # and not that another run is there
        RunFolder(config).find_checkpoint(str(tmp_path / "elsewhere.pt"), False)


@pytest.mark.parametrize(("now", "words"), [("12", ""), ("4", "4 CPU threads what 12 began")])
def test_a_resume_on_other_threads_warns(config_file, caplog, now, words):
    config = load_config(config_file)
    dataset = training_set(config)
    before = recipe_facts(config, dataset, CPU)
    state = {"config": config.to_dict(), "classes": dataset.class_names, **before}
    resumed = load_config(config_file, [f"run.threads={now}"])
    with caplog.at_level(logging.WARNING):
        require_same_recipe(resumed, state, "last.pt", dataset, recipe_facts(resumed, dataset, CPU))
    assert words in caplog.text and bool(words) == bool(caplog.text)


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({}, "PASSIVE 10000"),
        ({"GOMP_SPINCOUNT": "7"}, "PASSIVE 7"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE None"),
        ({"OMP_WAIT_POLICY": "PASSIVE"}, "PASSIVE None"),
    ],
)
def test_threads_spin_for_a_moment_and_sleep_unless_the_user_chose(chosen, expected):
    line = "import sys, os, engine.run.cli; assert 'torch' not in sys.modules; "
    line += "print(os.environ['OMP_WAIT_POLICY'], os.environ.get('GOMP_SPINCOUNT'))"
    environment = {
        name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    }
    done = subprocess.run(
        [sys.executable, "-c", line], cwd=ROOT, env=environment | chosen, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == expected
