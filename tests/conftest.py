"""Where the tests find shared reference material, and the markers that skip without it or without a GPU."""

import logging
import os
from collections.abc import Iterator
from logging.handlers import MemoryHandler
from pathlib import Path

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before anything imports Triton: its kernels then run on the CPU

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("ALRP_SHARED", ROOT.parent / "shared"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):  # a folder of that name is a keyword too
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(autouse=True)
def log_level() -> Iterator[None]:
    """A command that runs within a test sets the level of all logging, and one that ends early leaves the lines that it
    held; the next test starts with the usual level and without them."""
    level = logging.getLogger().level
    yield
    for handler in [each for each in logging.getLogger().handlers if isinstance(each, MemoryHandler)]:
        logging.getLogger().removeHandler(handler)
    logging.getLogger().setLevel(level)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with the reference data sets and golden files; set ALRP_SHARED if it is not ../shared."""
    if not SHARED.is_dir():
        pytest.skip(f"no shared reference material at {SHARED} (set ALRP_SHARED)")
    return SHARED
