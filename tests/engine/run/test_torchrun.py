"""What torchrun and a scheduler do to a run: signals to everything at once, and restarts after a kill."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from engine import load_config
from engine.run.checkpoint import load_checkpoint
from engine.run.run_folder import RunFolder

ROOT = Path(__file__).resolve().parents[3]


def torchrun(*arguments: object, options: tuple = ()) -> subprocess.Popen:
    """Two processes under torchrun, in a process group of their own."""
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        [*line, "train.py", *map(str, arguments)],
        cwd=ROOT,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(process: subprocess.Popen, start: str) -> list[str]:
    """Lines up to one that starts so."""
    lines = []
    for line in process.stderr:
        lines.append(line)
        if line.startswith(start):
            break
    return lines


def end(process: subprocess.Popen) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_whole_process_group_ends_in_a_checkpoint(config_file, number):
    """Loader workers and torchrun get it too, and torchrun passes it on: the processes receive it twice."""
    process = torchrun("--config", config_file, "schedule.epochs=10000", "evaluation.every=9999", "data.workers=1")
    try:
        wait_for(process, "train:")
        os.killpg(process.pid, number)
        said = process.stderr.read()
        assert process.wait(60) != 0, said
    finally:
        end(process)
    assert f"stopped by signal {int(number)} after step" in said
    assert "error:" not in said and "DataLoader worker" not in said, said
    step = load_checkpoint(RunFolder(load_config(config_file)).last)["step"]
    assert f"after step {step};" in said


@pytest.mark.slow
def test_torchrun_restarts_from_the_last_checkpoint_without_help(config_file):
    """--overwrite stays on the command line of the restart, and must not throw away what the first attempt wrote."""
    words = (
        "--config",
        config_file,
        "run.checkpoint_every=1",
        "--overwrite",
        "schedule.epochs=4",
        "evaluation.every=9",
    )
    process = torchrun(*words, options=("--max-restarts", "2"))
    folder = RunFolder(load_config(config_file))
    try:
        wait_for(process, "train:")
        workers = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
        while not folder.last.exists():
            assert process.poll() is None
        os.kill(int(workers[1]), signal.SIGKILL)
        said = process.stderr.read()
        assert process.wait(100) == 0, said
    finally:
        end(process)
    assert "at step 0 of 12" not in said
    assert " of 12\n" in said  # the plan of the second attempt
    state = load_checkpoint(folder.last)
    assert state["step"] == 12
    assert all(torch.isfinite(tensor).all() for tensor in state["model"].values())
