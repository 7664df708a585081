"""Synthetic scenes: textured shapes on cluttered backgrounds.

A scene is determined by (seed, split, index) and its size alone. Outline, texture and, less reliably, colour tell what
a thing is; clutter has any colour and texture.
"""

import math
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from data.synthetic.texture import TEXTURES, blend, noise, ramp, texture

CLASSES = ("circle", "square", "triangle", "star", "cross", "ring")
# What the fills of a class look like; clutter and backgrounds have any of them.
CLASS_TEXTURES = {
    "circle": ("plain", "gradient"),
    "square": ("checker",),
    "triangle": ("stripes",),
    "star": ("dots",),
    "cross": ("noise", "plain"),
    "ring": TEXTURES,
}

MAX_OBJECTS = 8
SIDE_RANGE = (0.08, 0.60)  # longer side of the box / image side
MIN_VISIBLE = 0.70  # of an object's area, the part beyond the border counting as hidden
MIN_INSIDE = 0.85  # of an object's area
MIN_CONTRAST = 100.0  # RGB distance of a thing's colours from most of what its outline lies on
FILL_CONTRAST = 60.0  # standard deviation of the distance between a fill's two colours, per channel
HUE_SPREAD = 0.07  # standard deviation of the hues of a class, in turns; the next class is 1/6 away
BACKGROUND_SATURATION = 0.35
MAX_TURN = math.pi / 6  # either way, of every shape
PLACEMENT_TRIES = 25  # then the object is left out
SUPERSAMPLING = 4


@dataclass(frozen=True)
class Layer:
    """An object, or a piece of clutter, as it lies in the image of side S.

    Attributes:
        label: index into CLASSES, -1 for clutter.
        contours: (n, 2) float64 arrays of xy pixels, the outline and then its holes; may leave the image.
        x, y: pixel of the image where the patch of coverage has its top-left corner.
        coverage: (h, w) uint8, how much of each pixel lies inside the outline; 255 is all of it.
    """

    label: int
    contours: list[np.ndarray]
    x: int
    y: int
    coverage: np.ndarray

    @property
    def area(self) -> int:
        """Pixels at least half covered, those beyond the border included."""
        return int((self.coverage >= 128).sum())

    def clip(self, size: int) -> tuple[tuple[slice, slice], np.ndarray]:
        """Rows and columns of the image that the patch reaches, and the coverage in them."""
        height, width = self.coverage.shape
        top, left = max(0, -self.y), max(0, -self.x)
        bottom, right = max(top, min(height, size - self.y)), max(left, min(width, size - self.x))
        window = slice(self.y + top, self.y + bottom), slice(self.x + left, self.x + right)
        return window, self.coverage[top:bottom, left:right]

    def mask(self, size: int) -> np.ndarray:
        """(S, S) bool, pixels of the image at least half covered, whatever lies in front of them."""
        mask = np.zeros((size, size), dtype=bool)
        window, coverage = self.clip(size)
        mask[window] = coverage >= 128
        return mask

    def box(self, size: int) -> list[float]:
        """Smallest box around the mask, COCO order: x, y, width, height in pixels."""
        (rows, columns), coverage = self.clip(size)
        covered = coverage >= 128
        xs, ys = np.flatnonzero(covered.any(axis=0)), np.flatnonzero(covered.any(axis=1))
        x, y = columns.start + xs[0], rows.start + ys[0]
        return [float(v) for v in (x, y, xs[-1] - xs[0] + 1, ys[-1] - ys[0] + 1)]


def draw_scene(seed: int, split: str, index: int, size: int) -> tuple[np.ndarray, list[Layer], np.ndarray]:
    """Draw image number `index` of a split.

    Returns:
        image: (S, S, 3) uint8 RGB with S = size.
        objects: one to MAX_OBJECTS layers, back to front.
        owner: (S, S) int, which of the objects is seen at a pixel: its position in the list, -1 where none is.
    """
    rng = np.random.default_rng([seed, zlib.crc32(split.encode()), index])
    objects, clutter, owner = _arrange(rng, size)
    canvas = _background(rng, size)
    for layer in [*objects, *clutter]:
        _paint(rng, canvas, layer)
    return _photograph(rng, canvas), objects, owner


def _arrange(rng: np.random.Generator, size: int) -> tuple[list[Layer], list[Layer], np.ndarray]:
    """Objects (back to front), strokes that lie over them, and which object is seen where."""
    count = int(rng.integers(1, MAX_OBJECTS + 1, 3).max())  # more often many than few
    depths = rng.permutation(count)
    # The mask may be a pixel longer or shorter than the outline; the largest object finds its place first.
    low, high = math.log(SIDE_RANGE[0] * size + 1), math.log(SIDE_RANGE[1] * size - 1)
    sides = np.exp(np.sort(rng.uniform(low, high, count))[::-1])
    placed: dict[int, Layer] = {}
    top = np.full((size, size), -1)  # depth of what is seen at a pixel
    visible, required = np.zeros(MAX_OBJECTS + 2), np.zeros(MAX_OBJECTS + 2)  # pixels at a depth; the last: background
    required[-1] = -math.inf

    def place(layer: Layer, depth: int) -> bool:
        """Put the layer in, unless it would leave too little of an object to be seen."""
        window, coverage = layer.clip(size)
        front = (coverage >= 128) & (top[window] < depth)
        left, needed = visible.copy(), required.copy()
        np.subtract.at(left, top[window][front], 1)
        left[depth] = front.sum()
        needed[depth] = MIN_VISIBLE * layer.area if layer.label >= 0 else 0
        if (left < needed).any():
            return False
        top[window][front] = depth
        visible[:], required[:] = left, needed
        return True

    for depth, side in zip(depths.tolist(), sides, strict=True):
        for _ in range(PLACEMENT_TRIES):
            shape = _random_object(rng, side, size)
            longer = max(shape.box(size)[2:])
            fits = SIDE_RANGE[0] * size <= longer <= SIDE_RANGE[1] * size
            inside = shape.mask(size).sum() >= MIN_INSIDE * shape.area
            if fits and inside and place(shape, depth):
                placed[depth] = shape
                break
    strokes = [_random_clutter(rng, size, thin=True) for _ in range(rng.integers(0, 2))]
    strokes = [stroke for stroke in strokes if place(stroke, MAX_OBJECTS)]
    order = sorted(placed)
    position = np.full(MAX_OBJECTS + 2, -1)  # depth → index in the list; strokes and background → -1
    position[order] = np.arange(len(order))
    return [placed[depth] for depth in order], strokes, position[top]


def _random_object(rng: np.random.Generator, side: float, size: int) -> Layer:
    """A shape whose box has the given longer side, turned, seen a little from the side, somewhere in the image."""
    label = int(rng.integers(len(CLASSES)))
    turn, tilt = _rotation(rng.uniform(-MAX_TURN, MAX_TURN)), _rotation(rng.uniform(0, math.pi))
    view = tilt.T @ np.diag([1.0, rng.uniform(0.85, 1.0)]) @ tilt
    contours = [contour @ turn @ view for contour in _outline(rng, label)]
    low, high = contours[0].min(axis=0), contours[0].max(axis=0)
    scale = side / (high - low).max()
    overhang = 0.15 * side
    corner = rng.uniform(-overhang, size + overhang - scale * (high - low))
    return _rasterise([(contour - low) * scale + corner for contour in contours], label)


def _outline(rng: np.random.Generator, label: int) -> list[np.ndarray]:
    """Outline and holes of a class, about the origin, in any unit; proportions vary."""
    name = CLASSES[label]
    if name == "circle":
        return [_polar(np.ones(96))]
    if name == "ring":
        return [_polar(np.ones(96)), _polar(np.full(96, rng.uniform(0.5, 0.72)))]
    if name == "square":
        return [_polar(np.ones(4)) @ _rotation(math.pi / 4)]
    if name == "triangle":
        return [_polar(np.ones(3)) @ _rotation(-math.pi / 2)]
    if name == "star":
        return [_polar(np.tile([1.0, rng.uniform(0.38, 0.52)], 5)) @ _rotation(-math.pi / 2)]
    arm = rng.uniform(0.26, 0.42)  # a cross
    quarter = np.array([[1.0, -arm], [1.0, arm], [arm, arm]])
    return [np.concatenate([quarter @ _rotation(k * math.pi / 2) for k in range(4)])]


def _random_clutter(rng: np.random.Generator, size: int, thin: bool = False) -> Layer:
    """A line, an open arc, a zigzag or an irregular blob: nothing that belongs to a class."""
    scale = size * math.exp(rng.uniform(math.log(0.05), math.log(0.35)))
    width = size * rng.uniform(0.006, 0.015) if thin else max(1.5, scale * rng.uniform(0.08, 0.3))
    kind = ("line", "arc", "zigzag", "blob")[rng.integers(3 if thin else 4)]
    if kind == "line":
        points = np.array([[-1.0, 0.0], [0.0, rng.uniform(-0.2, 0.2)], [1.0, 0.0]]) * rng.uniform(1, 3)
    elif kind == "arc":
        angles = np.linspace(0, rng.uniform(0.3, 1.2) * math.pi, 16)
        points = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    elif kind == "zigzag":
        points = np.stack([np.linspace(-1, 1, 4), rng.uniform(-0.8, 0.8, 4)], axis=1)
    else:
        t = np.linspace(0, 2 * math.pi, 64, endpoint=False)
        waves = [rng.uniform(0.1, 0.3) * np.cos(k * t + rng.uniform(0, 2 * math.pi)) for k in (2, 3, 4)]
        points = _polar(1 + np.sum(waves, axis=0))
    points = points @ _rotation(rng.uniform(0, 2 * math.pi)) * scale + rng.uniform(0, size, 2)
    return _rasterise([points], label=-1, stroke=0 if kind == "blob" else width)


def _rasterise(contours: list[np.ndarray], label: int, stroke: float = 0) -> Layer:
    """Antialiased filled outline, or with stroke > 0 a line of that width along it."""
    margin = math.ceil(stroke) + 1
    x, y = (int(v) - margin for v in np.floor(contours[0].min(axis=0)))
    width, height = (np.ceil(contours[0].max(axis=0)).astype(int) + margin - (x, y)).tolist()
    patch = Image.new("L", (width * SUPERSAMPLING, height * SUPERSAMPLING))
    draw = ImageDraw.Draw(patch)
    for hole, contour in enumerate(contours):
        # Pillow's integer coordinates are pixel centres, ours are pixel corners
        points = np.rint((contour - (x, y)) * SUPERSAMPLING - 0.5).ravel().tolist()
        if stroke:
            draw.line(points, fill=255, width=round(stroke * SUPERSAMPLING), joint="curve")
        else:
            draw.polygon(points, fill=0 if hole else 255)
    return Layer(label, contours, x, y, np.asarray(patch.reduce(SUPERSAMPLING)))


def _background(rng: np.random.Generator, size: int) -> np.ndarray:
    """(3, S, S) float32 canvas: one or two textured surfaces, low-frequency stains, clutter."""
    base = rng.uniform(40, 215) + rng.normal(0, 35, 3)
    canvas = _surface(rng, size, base)
    if rng.random() < 0.4:
        beyond = ramp(rng, size, size) > rng.uniform(0.3, 0.7)
        canvas = np.where(beyond, _surface(rng, size, base + rng.normal(0, 40, 3)), canvas)
    stains = np.stack([noise(rng, size, size, int(rng.integers(3, 9))) for _ in range(3)])
    canvas += (stains - 0.5) * np.float32(rng.uniform(10, 70))
    grey = canvas.mean(axis=0)
    canvas = grey + np.float32(BACKGROUND_SATURATION) * (canvas - grey)
    for _ in range(rng.integers(1, 6)):
        _paint(rng, canvas, _random_clutter(rng, size))
    return canvas


def _surface(rng: np.random.Generator, size: int, colour: np.ndarray) -> np.ndarray:
    """(3, S, S) float32 pattern of little contrast about a colour."""
    return blend(
        colour, colour + rng.normal(0, 25, 3), texture(rng, size, size, size * rng.uniform(0.2, 1.0), TEXTURES)
    )


def _paint(rng: np.random.Generator, canvas: np.ndarray, layer: Layer) -> None:
    """Lay a random fill over the canvas, in place, in two related colours that stand out along the outline."""
    size = canvas.shape[-1]
    (rows, columns), coverage = layer.clip(size)
    if not coverage.any():
        return
    along = layer.contours[0][:: math.ceil(len(layer.contours[0]) / 24)]
    column, row = np.clip(along, 0, size - 1).astype(int).T
    candidates = _colours(rng, layer.label, 24)
    distances = np.linalg.norm(candidates[..., None] - canvas[:, row, column], axis=1)
    contrast = np.sort(distances, axis=1)[:, distances.shape[1] // 5]  # reached on four fifths of the outline
    first = candidates[np.minimum(contrast, MIN_CONTRAST).argmax()]  # the first that suffices, else the best
    second = first + rng.normal(0, FILL_CONTRAST, 3)
    textures = TEXTURES if layer.label < 0 else CLASS_TEXTURES[CLASSES[layer.label]]
    height, width = coverage.shape
    fill = blend(first, second, texture(rng, height, width, max(height, width), textures))
    fill *= 1 + rng.uniform(0, 0.4) * (ramp(rng, height, width) - 0.5)
    below = canvas[:, rows, columns]
    below += coverage * np.float32(1 / 255) * (fill - below)


def _colours(rng: np.random.Generator, label: int, count: int) -> np.ndarray:
    """(count, 3) float32 RGB: any for clutter, vivid ones about the hue of the class for objects."""
    if label < 0:
        return rng.uniform(0, 255, (count, 3)).astype(np.float32)
    hue = label / len(CLASSES) + rng.normal(0, HUE_SPREAD, count)
    saturation, value = rng.uniform(0.5, 1, count), rng.uniform(0.4, 1, count)
    distance = np.abs((hue[:, None] - np.array([0, 1 / 3, 2 / 3]) + 0.5) % 1 - 0.5) * 6  # to each primary, 0 to 3
    pure = np.clip(2 - distance, 0, 1)
    return (255 * value[:, None] * (1 - saturation[:, None] * (1 - pure))).astype(np.float32)


def _photograph(rng: np.random.Generator, canvas: np.ndarray) -> np.ndarray:
    """Uneven light, a lens that may be out of focus and a noisy sensor; (S, S, 3) uint8."""
    size = canvas.shape[-1]
    canvas = canvas * (1 + rng.uniform(0, 0.5) * (ramp(rng, size, size) - 0.5))
    canvas += rng.standard_normal((size, size), dtype=np.float32) * np.float32(rng.uniform(1, 8))
    image = Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8).transpose(1, 2, 0).copy())
    if rng.random() < 0.4:
        image = image.filter(ImageFilter.BoxBlur(rng.uniform(0.4, 1.2)))
    return np.asarray(image)


def _polar(radii: np.ndarray) -> np.ndarray:
    """(n, 2) points at these distances from the origin, at even angles."""
    angles = np.linspace(0, 2 * math.pi, len(radii), endpoint=False)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def _rotation(angle: float) -> np.ndarray:
    """(2, 2) matrix that turns row vectors by the angle, in radians."""
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, s], [-s, c]])
