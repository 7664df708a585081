"""SIGTERM, SIGINT and SIGUSR1 as a request to finish the step and write a checkpoint."""

import signal
import time
from types import FrameType, TracebackType

# a signal to a whole process group arrives again through torchrun, which passes on its own
REPEAT_SECONDS = 5.0


class StopSignal:
    """Context in which the three signals set `number` instead of ending the process; another one, five seconds later
    or more, ends it at once. After a stop they stay ignored: the process is about to end by itself, in step with the
    others."""

    SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

    def __init__(self) -> None:
        self.number = 0

    def __enter__(self) -> "StopSignal":
        self._previous = {number: signal.signal(number, self._receive) for number in self.SIGNALS}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, signal.SIG_IGN if self.number else handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if not self.number:
            self.number, self._received = number, time.monotonic()
        elif time.monotonic() - self._received >= REPEAT_SECONDS:
            raise SystemExit(128 + number)
