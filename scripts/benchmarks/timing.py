"""Interleaved timing: every case in turn, again and again, so that a busy machine slows all of them alike."""

import time
from collections.abc import Callable, Mapping
from statistics import median

import torch


def interleave(
    cases: Mapping[str, Callable[[], object]],
    repetitions: int,
    warm_up: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median seconds of each case by a clock; on a GPU until it has done its work."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for repetition in range(warm_up + repetitions):
        for name, run in cases.items():
            start = _now(clock)
            run()
            elapsed = _now(clock) - start
            if repetition >= warm_up:
                seconds[name].append(elapsed)
    return {name: median(values) for name, values in seconds.items()}


def _now(clock: Callable[[], float]) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return clock()
