"""Random patterns that the surfaces of the synthetic scenes are painted with."""

import math

import numpy as np
from PIL import Image

TEXTURES = ("plain", "gradient", "noise", "stripes", "checker", "dots", "marble")


def texture(rng: np.random.Generator, height: int, width: int, extent: float, kinds: tuple[str, ...]) -> np.ndarray:
    """(height, width) float32 pattern, about 0 to 1, whose repeats suit a thing of that extent in pixels."""
    kind = kinds[rng.integers(len(kinds))]
    if kind == "plain":
        return np.zeros((height, width), dtype=np.float32)
    if kind == "gradient":
        return ramp(rng, height, width)
    if kind == "noise":
        return noise(rng, height, width, int(rng.integers(4, 12)))
    angle = rng.uniform(0, 2 * math.pi)
    frequency = 2 * math.pi / max(4.0, extent * rng.uniform(0.12, 0.4))
    x = np.arange(width, dtype=np.float32) * frequency
    y = np.arange(height, dtype=np.float32)[:, None] * frequency
    u = math.cos(angle) * x + (math.sin(angle) * y + rng.uniform(0, 2 * math.pi))
    v = math.sin(angle) * x - (math.cos(angle) * y + rng.uniform(0, 2 * math.pi))
    if kind == "stripes":
        wave = 2 * np.sin(u)
    elif kind == "checker":
        wave = 4 * np.sin(u) * np.sin(v)
    elif kind == "dots":
        wave = 2 * (np.sin(u) + np.sin(v)) - 1.5
    else:
        wave = np.sin(u + 6 * noise(rng, height, width, 5))
    return np.clip(wave + 0.5, 0, 1)


def ramp(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """(height, width) float32 plane that rises from 0 to 1 in a random direction."""
    angle = rng.uniform(0, 2 * math.pi)
    x = math.cos(angle) * (np.arange(width, dtype=np.float32) / width - np.float32(0.5))
    y = math.sin(angle) * (np.arange(height, dtype=np.float32) / height - np.float32(0.5))
    return (x + y[:, None]) / (abs(math.cos(angle)) + abs(math.sin(angle))) + np.float32(0.5)


def noise(rng: np.random.Generator, height: int, width: int, cells: int) -> np.ndarray:
    """(height, width) float32 smooth noise, about 0 to 1, with so many cells along a side."""
    grid = Image.fromarray(rng.random((cells, cells), dtype=np.float32))
    return np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC))


def blend(first: np.ndarray, second: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(3, height, width) float32: the first colour where the weight is 0, the second where it is 1."""
    step = (second - first).astype(np.float32)
    return first.astype(np.float32)[:, None, None] + step[:, None, None] * weight
