"""Numbers of things as text."""

import pytest

from data.counts import counted


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [
        (1, "class", "1 class"),
        (2, "class", "2 classes"),
        (1, "image", "1 image"),
        (0, "image", "0 images"),
        (3, "crowd region", "3 crowd regions"),
    ],
)
def test_one_is_singular(number, noun, text):
    assert counted(number, noun) == text
