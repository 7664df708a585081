"""What torch.compile is to leave alone."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def breaks_graph(function: Callable[P, R]) -> Callable[P, R]:
    """The function as torch.compile leaves it alone, called from compiled code or given to it.

    Shapes within depend on the number of positives: each would break the graph, and be compiled anew for every other
    number.
    """
    alone: Callable[P, R] = torch.compiler.disable(function)

    @wraps(function)  # around it, since torch.compile(alone) would compile the function itself
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return alone(*args, **kwargs)

    return call
