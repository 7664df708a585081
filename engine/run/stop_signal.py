"""SIGTERM, SIGINT and SIGUSR1 as a request to finish the step and write a checkpoint, also while data do not come."""

import logging
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

from torch.distributed import Store

log = logging.getLogger(__name__)

# a signal to a whole process group arrives again through torchrun, which passes on its own
REPEAT_SECONDS = 5.0
WAIT_SECONDS = 10.0  # for a batch, at least so long after the signal; schedulers and torchrun give 30 before they kill
# those that there are; Windows lacks the last, and the alarm that ends a wait for data
SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name)]
HAS_ALARM = hasattr(signal, "setitimer")


class StoppedWaiting(BaseException):
    """A batch that did not come within WAIT_SECONDS, after a signal. No Exception, which readers of files turn into
    theirs: it is raised wherever in the loader the process waits."""


class StopSignal:
    """Context in which the three signals set `number` instead of ending the process; another one, five seconds later
    or more, ends it at once. After a stop they stay ignored: the process is about to end by itself, in step with the
    others.

    Args:
        store: of a run of several processes; a signal to one of them then is one to all. None: this process alone.
    """

    # When a wait for data began, or None; of the class, as signals are of the process and a loader knows no trainer.
    _waits_since: float | None = None

    def __init__(self, store: Store | None = None) -> None:
        self.number = 0
        self._relay = None if store is None else _Relay(store)

    def __enter__(self) -> "StopSignal":
        self._previous = {number: signal.signal(number, self._receive) for number in SIGNALS}
        if HAS_ALARM:
            self._previous_alarm = signal.signal(signal.SIGALRM, self._end_wait)
        if self._relay is not None:
            self._relay.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._relay is not None:
            self._relay.end()
        if HAS_ALARM:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._previous_alarm)
        for number, handler in self._previous.items():
            signal.signal(number, signal.SIG_IGN if self.number else handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if not self.number:
            self.number, self._received = number, time.monotonic()
            if HAS_ALARM:
                signal.setitimer(signal.ITIMER_REAL, WAIT_SECONDS, 1.0)  # again and again: a later wait is none either
        elif time.monotonic() - self._received >= REPEAT_SECONDS:
            raise SystemExit(128 + number)

    def _end_wait(self, number: int, frame: FrameType | None) -> None:
        began = StopSignal._waits_since
        if began is not None and time.monotonic() - began >= WAIT_SECONDS:
            StopSignal._waits_since = None
            raise StoppedWaiting

    @staticmethod
    @contextmanager
    def waiting() -> Iterator[None]:
        """Context of a wait for data, which StoppedWaiting ends after a signal, where signals are listened to."""
        StopSignal._waits_since = time.monotonic()
        try:
            yield
        finally:
            StopSignal._waits_since = None


class _Relay(threading.Thread):
    """Passes a signal to one process of a run on to the others.

    A thread, because Python's handlers wait for the main one, and that may sit in a collective until the others come.
    """

    KEY = "signal"
    LOOK_SECONDS = 1.0

    def __init__(self, store: Store) -> None:
        super().__init__(daemon=True)
        self._store, self._ended = store, threading.Event()
        self._arrived, self._written = socket.socketpair()
        for end in (self._arrived, self._written):
            end.setblocking(False)

    def start(self) -> None:
        # the interpreter writes the number of a signal there the moment that it arrives
        self._previous = signal.set_wakeup_fd(self._written.fileno(), warn_on_full_buffer=False)
        super().start()

    def end(self) -> None:
        self._ended.set()
        signal.set_wakeup_fd(self._previous)

    def run(self) -> None:
        try:
            while not self._ended.is_set():
                if select.select([self._arrived], [], [], self.LOOK_SECONDS)[0]:
                    numbers = [number for number in self._arrived.recv(64) if number in SIGNALS]
                    if numbers:
                        self._store.set(self.KEY, str(numbers[0]))
                        return
                elif self._store.check([self.KEY]):
                    os.kill(os.getpid(), int(self._store.get(self.KEY)))
                    return
        except RuntimeError as error:  # the store went down with its host, and with it the run
            log.debug("signals are not passed on any more: %s", error)
