"""TensorBoard pages of a run. Logging reads values and changes none; processes other than the main one log nothing."""

import resource
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


class NullLogger:
    """The logger of every process but the main one."""

    def scalars(self, prefix: str, values: dict[str, float], step: int) -> None: ...

    def images(self, tag: str, images: list[Tensor], step: int) -> None: ...

    def text(self, tag: str, text: str) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


class TensorBoardLogger(NullLogger):
    """Event files in the run folder.

    Args:
        folder: run folder.
        step: steps done so far; points after it, left by an interrupted run, are dropped from the curves.
    """

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # imported late: it takes seconds

        self._writer = SummaryWriter(str(folder), purge_step=step + 1 if step else None, flush_secs=30)

    def scalars(self, prefix: str, values: dict[str, float], step: int) -> None:
        """One point per value, tagged prefix/name."""
        for name, value in values.items():
            self._writer.add_scalar(f"{prefix}/{name}", value, step)

    def images(self, tag: str, images: list[Tensor], step: int) -> None:
        """(3, H, W) uint8 pictures, tagged tag/0, tag/1, …"""
        for index, image in enumerate(images):
            self._writer.add_image(f"{tag}/{index}", image, step)

    def text(self, tag: str, text: str) -> None:
        """A page of text, shown verbatim."""
        self._writer.add_text(tag, "\n".join("    " + line for line in text.splitlines()))

    def flush(self) -> None:
        """Writes out the points so far: a checkpoint must not be ahead of its curves."""
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def peak_memory_gb(device: torch.device) -> float:
    """Peak memory of this process so far in GB: allocated on the GPU, resident on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def scalar_metrics(metrics: dict[str, Any]) -> dict[str, float]:
    """The numbers of an evaluation without its per-class part and without undefined ones (-1)."""
    return {name: value for name, value in metrics.items() if isinstance(value, float | int) and value >= 0}
