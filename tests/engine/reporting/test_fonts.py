"""Fonts that have the letters of a name."""

from pathlib import Path

import pytest

from engine.reporting.fonts import PILLOWS_OWN, drawable, families, font_file

NOWHERE = "\U000f0000"  # private use


def test_ascii_needs_no_look_at_the_fonts():
    assert font_file("a class, 0.53") == PILLOWS_OWN


@pytest.mark.parametrize("name", ["Größe", "кошка", "γάτα"])
def test_letters_of_matplotlibs_own_font_are_found_there(name):
    path = font_file(name)
    assert path and Path(path).name == "DejaVuSans.ttf"
    assert drawable(name, "class 1") == name


def test_what_no_font_has_is_replaced():
    assert font_file(NOWHERE) is None
    assert drawable(f"cat {NOWHERE}", "class 1") == "class 1"
    assert families(("cat", "Größe", NOWHERE)) == ["DejaVu Sans"]
