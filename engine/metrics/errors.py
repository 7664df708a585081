"""The exception of the metrics."""


class DetectionsError(ValueError):
    """Results or annotations that cannot be evaluated: one line with the file, the place and the remedy."""

    exit_status = 2
