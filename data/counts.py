"""Numbers of things as text."""


def counted(number: int, noun: str) -> str:
    """`1 image`, `2 images`; `1 class`, `2 classes`."""
    return f"{number} {noun if number == 1 else noun + ('es' if noun.endswith('s') else 's')}"
