"""Files that torch.save wrote, read without running any code that they name."""

import pickle
import re
from pathlib import Path
from typing import Any, Literal

import torch


class StateFileError(ValueError):
    """A file that gives no content: the message says what is wrong with it; who asked for it adds name and remedy.

    Attributes:
        kind: "unreadable" from the disk; "unsafe": holds what torch refuses to unpickle because that can run code;
            "foreign": no file of torch.save; "damaged": maybe one.
        unsafe_type: the name of the type that is refused, where `kind` is "unsafe".
    """

    exit_status = 2

    def __init__(
        self, message: str, kind: Literal["unreadable", "unsafe", "foreign", "damaged"], unsafe_type: str | None = None
    ) -> None:
        super().__init__(message)
        self.kind, self.unsafe_type = kind, unsafe_type


def read_state_file(path: str | Path) -> Any:
    """Tensors, on the CPU, and plain values of a file. Raises StateFileError."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise StateFileError(f"cannot be read ({error.strerror or error})", "unreadable") from error
    except pickle.UnpicklingError as error:
        if (found := re.search(r"GLOBAL ([\w.]+)", str(error))) is None:
            raise StateFileError("not a file that torch.save wrote", "foreign") from error
        raise StateFileError(f"holds an object of type {found[1]}", "unsafe", found[1]) from error
    except MemoryError:
        raise
    except Exception as error:  # the unpickler raises nearly any type on a damaged file
        raise StateFileError("damaged, or not a file that torch.save wrote", "damaged") from error
