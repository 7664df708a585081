"""log.txt of a run: every line of its console with the time, and the error that ended it."""

import logging
import logging.handlers
import sys
import traceback
from contextlib import suppress
from pathlib import Path


class _HeldLines(logging.handlers.MemoryHandler):
    """Lines from before there is a run folder to write them to."""

    def __init__(self) -> None:
        super().__init__(capacity=sys.maxsize, flushLevel=sys.maxsize)


def hold_lines() -> None:
    """Keeps the lines of this process from now on for the `LogFile` that is to come."""
    logging.getLogger().addHandler(_HeldLines())


class _LogHandler(logging.FileHandler):
    """A full disk takes no more lines; whoever else writes there ends the run, and the console says why."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

    def close(self) -> None:
        with suppress(OSError):  # lines that are still to be written
            super().close()


class LogFile:
    """The file, which goes on where an earlier start of the run ended. Takes the lines held so far."""

    def __init__(self, path: Path) -> None:
        self._handler = _LogHandler(path, encoding="utf-8", errors="backslashreplace")
        self._handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        root = logging.getLogger()
        for held in [handler for handler in root.handlers if isinstance(handler, _HeldLines)]:
            held.setTarget(self._handler)
            root.removeHandler(held)
            held.close()  # writes them
        root.addHandler(self._handler)

    def close(self, error: BaseException | None = None) -> None:
        """Ends the file.

        Args:
            error: what ends the run, if anything: a line for what is the user's to mend, else the traceback.
        """
        if isinstance(error, Exception):
            text = f"error: {' '.join(str(error).split())}"
            if not hasattr(error, "exit_status"):
                text = "".join(traceback.format_exception(error)).rstrip()
            self._handler.handle(logging.LogRecord(__name__, logging.ERROR, "", 0, "%s", (text,), None))
        logging.getLogger().removeHandler(self._handler)
        self._handler.close()
