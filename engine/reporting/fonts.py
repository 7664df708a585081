"""Fonts for names in any script. A font without a letter draws a box in its place, which says nothing."""

import functools

PILLOWS_OWN = ""  # for ASCII; every Pillow with FreeType has it


@functools.cache
def font_file(text: str) -> str | None:
    """A font file that has all letters of the text: PILLOWS_OWN, else matplotlib's own, else one of the system's; None
    if none has."""
    if text.isascii():
        return PILLOWS_OWN
    from matplotlib.font_manager import findfont, fontManager
    from matplotlib.ft2font import FT2Font

    letters = {ord(letter) for letter in text if not letter.isspace()}
    own = findfont("DejaVu Sans")
    others = sorted(entry.fname for entry in fontManager.ttflist if not entry.name.startswith("Last"))  # "Last Resort"
    for path in dict.fromkeys((own, *others)):
        try:
            if letters <= FT2Font(path).get_charmap().keys():
                return path
        except (OSError, RuntimeError):  # a damaged file, or one of a kind that FreeType does not take
            continue
    return None


def drawable(name: str, stand_in: str) -> str:
    """The name, or what stands for it where no font has its letters."""
    return name if font_file(name) is not None else stand_in


def families(names: tuple[str, ...]) -> list[str]:
    """Names of the font families that have the letters of all the names, for matplotlib."""
    from matplotlib.font_manager import FontProperties

    paths = dict.fromkeys(path for path in map(font_file, names) if path)
    return list(dict.fromkeys(["DejaVu Sans", *(FontProperties(fname=path).get_name() for path in paths)]))
