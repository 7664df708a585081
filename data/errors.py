"""The exceptions for data that a user can put right."""

import re


class DatasetError(ValueError):
    """Data that cannot be used: one line that names the file, the place in it and the remedy."""

    exit_status = 2

    def __init__(self, message: str) -> None:
        # DataLoader re-raises a worker's exception with its whole traceback as the message; our line ends it.
        super().__init__(re.split(r"(?:Dataset|Image)Error: ", message.strip())[-1])


class ImageError(DatasetError):
    """An image that cannot be used; `kind` is one of KINDS."""

    KINDS = ("missing", "empty", "damaged", "oversized", "of another size than annotated", "not an image")

    def __init__(self, message: str, kind: str = "damaged") -> None:
        super().__init__(message)
        self.kind = kind
