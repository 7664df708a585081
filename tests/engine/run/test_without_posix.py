"""What only POSIX has may be missing: training runs without it, and a warning says what that costs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]

# As on a system without them, such as Windows. SIGALRM and the others are gone before anything of ours is imported.
WITHOUT = """
import signal, sys
for name in ("fcntl", "resource"):
    sys.modules[name] = None
for name in ("SIGUSR1", "SIGALRM", "setitimer", "sigwaitinfo"):
    delattr(signal, name)
import train
sys.argv = ["train.py", *sys.argv[1:]]
raise SystemExit(train.main())
"""


@pytest.mark.slow
def test_training_needs_nothing_that_only_posix_has(config_file, tmp_path):
    arguments = ["--config", str(config_file), "schedule.max_steps=1"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    line = [sys.executable, "-c", WITHOUT, *arguments]
    result = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert result.returncode == 0, result.stderr
    assert "no locks on this system" in result.stderr
    assert (tmp_path / "runs/tiny/checkpoints/last.pt").is_file()
    assert "\x1b" not in result.stderr and "\r" not in result.stderr  # a plain log, as standard error is no terminal
