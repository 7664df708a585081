"""How long the cells of an ablation take, and which of them still fit into the time that there is."""

import math
import statistics
import threading
import time
from collections.abc import Callable

FIRST_LOOK = 60.0  # seconds after which the first cells tell how fast they are


class TimeLimit:
    """Lets a cell start only if it is expected to end in time.

    What is expected is the median of what ended so far, by epoch of training; before that the rate of the cells that
    run, looked at after a minute. The first cells start without an expectation.

    Args:
        minutes: from now on; None for no limit.
    """

    def __init__(self, minutes: float | None, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self.end = math.inf if minutes is None else now() + 60 * minutes
        self._per_epoch: list[float] = []
        self._estimate: float | None = None
        self._lock = threading.Lock()

    @property
    def seconds_left(self) -> float:
        return self.end - self._now()

    def fits(self, epochs: int) -> bool:
        """Whether a cell of so many epochs, started now, will have ended before the limit, for all that is known."""
        expected = self.expected(epochs)
        return self.seconds_left > (expected or 0.0)

    def expected(self, epochs: int) -> float | None:
        """Seconds that a cell takes, its test included; None before anything is known."""
        with self._lock:
            per_epoch = statistics.median(self._per_epoch) if self._per_epoch else self._estimate
        return None if per_epoch is None else per_epoch * epochs

    def ended(self, seconds: float, epochs: int) -> None:
        """A whole cell took so long."""
        with self._lock:
            self._per_epoch.append(seconds / epochs)

    def estimate(self, seconds_per_epoch: float) -> None:
        """The cells that run now need so long, until one has ended."""
        with self._lock:
            self._estimate = seconds_per_epoch
