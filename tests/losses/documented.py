"""Examples of the documents, and images to try their detectors on."""

import re
import sys
from pathlib import Path

import torch
from torch import Tensor

import losses

DOCS = Path(__file__).resolve().parents[2] / "docs"


def names_of(page: str) -> dict:
    """What the Python examples of a page define, in the order of the page."""
    sys.modules.setdefault("alrp", losses)  # as which this folder is installed
    names: dict = {}
    for example in re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL):
        exec(example, names)
    return names


def image_and_target(seed: int, size: int = 64) -> tuple[Tensor, dict[str, Tensor]]:
    """A dark image with two bright squares of different sizes in it; every fourth holds nothing."""
    generator = torch.Generator().manual_seed(seed)
    image = 0.2 * torch.rand(3, size, size, generator=generator)
    boxes = []
    for side, half in ((size // 3, 0), (size // 4, size // 2)):  # one in either half
        x = int(torch.randint(0, size - side, (1,), generator=generator))
        y = half + int(torch.randint(0, size // 2 - side + 1, (1,), generator=generator)) if side <= size // 2 else 0
        image[:, y : y + side, x : x + side] += 0.7
        boxes.append([x, y, x + side, y + side])
    kept = 0 if seed % 4 == 3 else 2
    return image, {"boxes": torch.tensor(boxes, dtype=torch.float)[:kept], "labels": torch.tensor([1, 0])[:kept]}
