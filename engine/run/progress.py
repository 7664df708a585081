"""Progress bars with rate and time left; plain lines where standard error is no terminal."""

import logging
import sys
from typing import Any

from tqdm import tqdm

_hidden = False


def hide_progress() -> None:
    """No bar and no line from now on, for --quiet."""
    global _hidden
    _hidden = True


class LinesAboveBars(logging.StreamHandler):
    """Log lines on a terminal, above the bars, which go on below."""

    def emit(self, record: logging.LogRecord) -> None:
        with tqdm.external_write_mode(file=sys.stderr):
            super().emit(record)


class _Lines:
    """Text stream that turns tqdm's carriage returns into lines of their own."""

    def write(self, text: str) -> None:
        line = text.strip("\r\n ")
        if line:
            print(line, file=sys.stderr, flush=True)

    def flush(self) -> None:
        sys.stderr.flush()


def progress(**options: Any) -> tqdm:
    """`tqdm(**options)`: a bar on a terminal, else a line every 15 seconds."""
    if _hidden:
        options["disable"] = True
    if sys.stderr.isatty():
        return tqdm(dynamic_ncols=True, **options)
    # tqdm's adaptive miniters would print the first lines of a slow start and then skip minutes
    # a position keeps tqdm from moving the cursor up from the bar within another one
    return tqdm(file=_Lines(), mininterval=15, maxinterval=15, position=0, **options)
