"""Processes that are forked from a server, which has imported once what takes a new process seconds."""

import multiprocessing
from collections.abc import Callable
from functools import cache
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
import torch.multiprocessing as mp

ROOT = Path(__file__).resolve().parents[1]
IMPORTED = ["engine.training.dry_run", "scripts.dev.killed_runs", "torch.utils.tensorboard", "pycocotools.cocoeval"]


@cache
def fork_server() -> ForkServerContext:
    """Of all tests of this process. Its environment is that of now."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))  # where the server finds what it imports beforehand
        forkserver.ensure_running()
    return context


def run_processes(work: Callable, arguments: tuple, number: int) -> None:
    """`torch.multiprocessing.spawn(work, arguments, number)`, without what that imports in each."""
    fork_server()
    mp.start_processes(work, arguments, number, start_method="forkserver")
