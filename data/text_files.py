"""Text and JSON files that other systems wrote: the one reader for the whole project."""

import codecs
import io
import json
from pathlib import Path
from typing import Any

from data.errors import DatasetError

_BOMS = (  # UTF-32's begins like UTF-16's
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_text(path: str | Path) -> str:
    """The content of a text file in UTF-8, or in UTF-16 or UTF-32 that can be told from its first bytes.

    A byte order mark is not part of it.

    Raises:
        DatasetError: the file cannot be read, or is in another encoding: names its line.
    """
    return decode_text(read_bytes(path), path)


def read_lines(path: str | Path) -> list[str]:
    """The lines of a text file without their ends; errors as of `read_text`."""
    # str.splitlines would also cut at form feeds and at separators that may be part of a name
    return [line.rstrip("\n") for line in io.StringIO(read_text(path), newline=None)]


def read_json(path: str | Path) -> Any:
    """The content of a JSON file. Raises DatasetError: it cannot be read or is not JSON."""
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: not valid JSON ({error})") from None


def read_bytes(path: str | Path) -> bytes:
    """The content of a file. Raises DatasetError where it cannot be read."""
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        reason = getattr(error, "strerror", None) or error
        raise DatasetError(f"{path}: cannot be read ({reason})") from None


def decode_text(data: bytes, path: str | Path, declared: str = "utf-8") -> str:
    """The text that a file's bytes stand for.

    Args:
        path: names the file in errors.
        declared: the encoding where the first bytes do not tell it.
    Raises:
        DatasetError: not of this encoding, compressed, or an encoding that Python does not know.
    """
    if data.startswith(b"\x1f\x8b"):
        raise DatasetError(f"{path}: compressed by gzip; unpack it")
    encoding = _encoding_of(data) or declared
    try:
        return data.decode(encoding)
    except LookupError:
        raise DatasetError(f"{path}: unknown encoding {encoding!r}; save the file as UTF-8") from None
    except ValueError as error:
        line = data.count(b"\n", 0, getattr(error, "start", 0)) + 1
        raise DatasetError(
            f"{path}: line {line} is not {encoding.removesuffix('-sig').upper()} text; it may be in GBK, Shift-JIS or "
            "Windows-1252: save the file as UTF-8"
        ) from None


def _encoding_of(data: bytes) -> str | None:
    """The encoding that the first bytes tell; None where they tell none."""
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return encoding
    # the first character of our formats is an ASCII one: in UTF-16 one of its two bytes is zero
    if len(data) % 2 == 0 and data[:2].count(0) == 1:
        return "utf-16-le" if data[1] == 0 else "utf-16-be"
    return None
