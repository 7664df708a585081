"""Wall-clock accounts of the training loop."""

import logging
import os
import statistics
import time
from array import array
from bisect import insort
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)

LATEST_STEPS = 20  # of a run that may have become slow
SLOW = 5.0  # times the run's step


class Clock:
    """Time and steps since the last reading, the time spent waiting for data, and the age of the last checkpoint."""

    def __init__(self) -> None:
        self._pace = Pace()
        self.restart()
        self.saved()

    def restart(self) -> None:
        self._start, self._waited, self.steps = time.monotonic(), 0.0, 0
        self._step_start = self._start

    @contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        start = time.monotonic()
        yield
        self._waited += time.monotonic() - start

    def step_done(self) -> None:
        """Counts a step, with its wait for data; what comes between it and the next is the next one's."""
        now = time.monotonic()
        self._pace.add(now - self._step_start)
        self._step_start, self.steps = now, self.steps + 1

    def read(self) -> tuple[float, float, int]:
        """(seconds, seconds waited for data, steps) since the last reading or restart."""
        reading = time.monotonic() - self._start, self._waited, self.steps
        self.restart()
        return reading

    def saved(self) -> None:
        self._saved = time.monotonic()

    def minutes_since_save(self) -> float:
        return (time.monotonic() - self._saved) / 60


class Pace:
    """Durations of a run's steps; one warning where the latest take far longer than the others."""

    def __init__(self) -> None:
        self._latest: deque[float] = deque(maxlen=LATEST_STEPS)
        self._sorted = array("d")  # those before the latest: 8 bytes a step
        self._warned = False

    def add(self, seconds: float) -> None:
        """To be called with each step's duration. Medians, because a checkpoint or a page fault slows single steps."""
        if len(self._latest) == LATEST_STEPS:
            insort(self._sorted, self._latest[0])
        self._latest.append(seconds)
        if self._warned or len(self._sorted) < LATEST_STEPS:
            return
        now, usual = statistics.median(self._latest), self._sorted[len(self._sorted) // 2]
        if now >= SLOW * usual:
            self._warned = True
            load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
            log.warning(
                "a step takes %.3g s now and took %.3g s before: other programs may use the CPUs (load %s on %s), the "
                "GPU or the disk; the numbers stay the same",
                now,
                usual,
                load,
                os.cpu_count(),
            )


def duration(seconds: float) -> str:
    """Seconds in words, to about two figures."""
    for unit, length in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} seconds"
