"""The source of every random number of the data."""

import numpy as np


def mix_seed(*numbers: int) -> int:
    """A 64-bit seed that depends on each of the non-negative numbers, and on their order, in every bit."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])
