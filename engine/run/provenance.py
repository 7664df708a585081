"""Where a result comes from: command line, versions, device and revision of the code."""

import os
import platform
import shlex
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("torchvision", "numpy", "pillow")
GIT_SECONDS = 10.0


def provenance(device: torch.device, world_size: int, precision: str) -> dict[str, str]:
    """Plain text by name: `command`, `started` (local time), `python`, `torch` and a version for each of PACKAGES,
    `device`, `precision` (resolved), `processes`, `revision`."""
    return {
        "command": shlex.join([Path(sys.executable).name, *sys.argv]),
        "started": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "python": platform.python_version(),
        "torch": str(torch.__version__),  # unlike the package's, it names the build
        **{name: _version(name) for name in PACKAGES},
        "device": _device_name(device),
        "precision": precision,
        "processes": str(world_size),
        "revision": revision(ROOT),
    }


def revision(root: Path) -> str:
    """The git commit of the checkout at `root`, with "+ changes" where tracked files differ from it; "unknown" without
    a checkout of its own or without git."""
    try:
        top, commit = _git(root, "rev-parse", "--show-toplevel", "HEAD").splitlines()
        if Path(top).resolve() != root.resolve():  # somebody else's repository, which this code lies in
            return "unknown"
        changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, ValueError, subprocess.SubprocessError):
        return "unknown"
    return commit + (" + changes" if changed else "")


def _git(root: Path, *arguments: str) -> str:
    line = ["git", "-C", str(root), *arguments]
    environment = os.environ | {"GIT_OPTIONAL_LOCKS": "0"}  # a look at the status must not write the index
    return subprocess.run(
        line, env=environment, capture_output=True, text=True, check=True, timeout=GIT_SECONDS
    ).stdout.strip()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"
    return f"cpu ({_cpu_name()}), {torch.get_num_threads()} threads"


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
