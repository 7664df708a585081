"""The exception for data that a user can put right."""


class DatasetError(ValueError):
    """Data that cannot be used: one line that names the file, the place in it and the remedy."""

    def __init__(self, message: str) -> None:
        # DataLoader re-raises a worker's exception with its whole traceback as the message; our line ends it.
        super().__init__(message.strip().rsplit("DatasetError: ", 1)[-1])
