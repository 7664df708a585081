"""Peak memory: of the process, which Linux counts, or what PyTorch has of a GPU; in MiB."""

import ctypes
from pathlib import Path

import torch


def reset_peak(device: str) -> float:
    """Starts the count of `peak_memory` anew; what is taken now."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / 2**20
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    return _of_process("VmRSS")


def peak_memory(device: str) -> float:
    """The most that was taken at a time since `reset_peak`."""
    return torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else _of_process("VmHWM")


def _of_process(name: str) -> float:
    """A number of /proc/self/status, which counts in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024
