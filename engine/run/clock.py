"""Wall-clock accounts of the training loop."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Time and steps since the last reading, the time spent waiting for data, and the age of the last checkpoint."""

    def __init__(self) -> None:
        self.restart()
        self.saved()

    def restart(self) -> None:
        self._start, self._waited, self.steps = time.monotonic(), 0.0, 0

    @contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        start = time.monotonic()
        yield
        self._waited += time.monotonic() - start

    def read(self) -> tuple[float, float, int]:
        """(seconds, seconds waited for data, steps) since the last reading or restart."""
        reading = time.monotonic() - self._start, self._waited, self.steps
        self.restart()
        return reading

    def saved(self) -> None:
        self._saved = time.monotonic()

    def minutes_since_save(self) -> float:
        return (time.monotonic() - self._saved) / 60


def duration(seconds: float) -> str:
    """Seconds in words, to about two figures."""
    for unit, length in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} seconds"
