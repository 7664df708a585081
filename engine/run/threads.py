"""CPU threads of a training or evaluating process."""

import os

import torch

from data.cpus import usable_cpus
from engine.run.groups import RunConfig


def thread_count(run: RunConfig) -> int:
    """Threads for `run.threads`; null: what OMP_NUM_THREADS says, else this process's share of the usable CPUs.

    PyTorch sees affinity and whole cores, but no quota, and threads beyond a quota make each other wait.
    """
    if run.threads is not None:
        return run.threads
    if os.environ.get("OMP_NUM_THREADS"):  # the user's choice, or torchrun's, which PyTorch has followed
        return torch.get_num_threads()
    share = usable_cpus() // int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return min(torch.get_num_threads(), max(1, share))
