"""Boxes with captions drawn into images: for TensorBoard, for predictions and for the README."""

import colorsys
import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from data.transforms import resize
from engine.evaluation.evaluator import Example
from engine.reporting.fonts import drawable, font_file

CARD = 350  # pixels: width at which TensorBoard shows a picture, scaled without smoothing, so that thin lines vanish
CARD_PEN = 3, 13  # line width and height of letters, in pixels, that can be seen there
GAP = 8  # pixels between the pictures of `joined`
GOLDEN_SECTION = 0.618034
RIGHT, FALSE, MISSED = (26, 158, 119), (228, 104, 42), (122, 92, 190)  # as in the report's error budget

Color = tuple[int, int, int]
Pen = tuple[int, int]  # width of lines and height of letters, in pixels
Rectangle = Sequence[float]  # x1, y1, x2, y2 in pixels


class Box(NamedTuple):
    """A box to draw: its corners in pixels, what is written beside it, its colour, and whether it is dashed."""

    rectangle: Rectangle
    caption: str
    color: Color
    dashed: bool = False


def draw_boxes(image: Tensor, boxes: Sequence[Box], pen: Pen | None = None) -> Tensor:
    """Boxes, the last on top, each with a caption that stays inside the image.

    Args:
        image: (3, H, W) uint8, RGB; not changed.
        boxes: cut off at the border, left out where not finite.
        pen: None for one that suits the size of the image.
    Returns:
        (3, H, W) uint8 on the CPU.
    """
    canvas = to_pil_image(image.cpu())
    draw = ImageDraw.Draw(canvas)
    line_width, letters = pen or _pen(canvas.size)
    right, bottom = canvas.width - 1, canvas.height - 1
    shown = []
    for box in boxes:
        if all(map(math.isfinite, box.rectangle)):
            x1, y1, x2, y2 = (max(0.0, side) for side in box.rectangle)
            inside = (min(x1, right), min(y1, bottom), min(x2, right), min(y2, bottom))
            shown.append(box._replace(rectangle=inside))
    for box in shown:
        outline = _dashed_rectangle if box.dashed else ImageDraw.ImageDraw.rectangle
        outline(draw, box.rectangle, outline=box.color, width=line_width)
    taken: list[Rectangle] = []
    for box in reversed(shown):
        font = _font(letters, box.caption)
        place = _caption_place(draw.textbbox((2, 1), box.caption, font), box.rectangle, canvas.size, taken)
        _draw_caption(draw, place, box.caption, font, box.color)
        taken.append(place)
    return pil_to_tensor(canvas)


def draw_detections(
    image: Tensor,
    boxes: Tensor,
    labels: Tensor,
    scores: Tensor | None,
    class_names: Sequence[str],
    crowd: Tensor | None = None,
    pen: Pen | None = None,
) -> Tensor:
    """Boxes in the colour of their class.

    Args:
        image, pen: as of `draw_boxes`.
        boxes: (n, 4) xyxy in its pixels.
        labels: (n,) integers in 0..K-1.
        scores: (n,), written behind the class name; the best is drawn on top. None for ground truth.
        class_names: K names.
        crowd: (n,) bool; crowd regions of the ground truth get a dashed outline. None: none is one.
    Returns:
        (3, H, W) uint8 on the CPU.
    """
    order = range(len(boxes)) if scores is None else scores.argsort(stable=True).tolist()
    drawn = []
    for index in order:
        label, is_crowd = int(labels[index]), crowd is not None and bool(crowd[index])
        score = "" if scores is None else f" {scores[index].item():.2f}"
        caption = f"{class_caption(class_names, label)}{score}{' (crowd)' if is_crowd else ''}"
        drawn.append(Box(boxes[index].tolist(), caption, class_color(label), is_crowd))
    return draw_boxes(image, drawn, pen)


def joined(pictures: Sequence[tuple[str, Tensor]], upright: bool = False, letters: int | None = None) -> Tensor:
    """Pictures of one size beside each other, or `upright` one below the other, each under its title.

    Args:
        pictures: (title, (3, H, W) uint8).
        letters: height of the titles in pixels; None for one that suits the pictures.
    Returns:
        (3, header + H, n W + 8 (n - 1)) uint8 on the CPU; upright (3, n (header + H), W).
    """
    height, width = pictures[0][1].shape[1:]
    letters = letters or _pen((width, height))[1]
    header = sum(_font(letters, "").getmetrics()) + 4
    count = len(pictures)
    size = (width, count * (header + height)) if upright else (count * (width + GAP) - GAP, header + height)
    canvas = Image.new("RGB", size, "white")
    for index, (title, picture) in enumerate(pictures):
        x, y = (0, index * (header + height)) if upright else (index * (width + GAP), 0)
        ImageDraw.Draw(canvas).text((x + 2, y + 2), title, fill="black", font=_font(letters, title))
        canvas.paste(to_pil_image(picture), (x, y + header))
    return pil_to_tensor(canvas)


def draw_example(example: Example, thresholds: Sequence[float | None], class_names: Sequence[str]) -> Tensor:
    """Ground truth above, and below it the detections at the operating point that LRP calls the best; a class without
    one shows none. For TensorBoard: at the size that it shows.

    Args:
        thresholds: of the K classes.
    """
    image, target, found = example
    limits = torch.tensor([2.0 if threshold is None else threshold for threshold in thresholds])
    shown = found["scores"] >= limits[found["labels"]]
    found = {name: value[shown] for name, value in found.items()}
    size = tuple(max(1, round(side * CARD / max(target["size"]))) for side in target["size"])
    _, found = resize(image, found, size)
    image, target = resize(image, target, size)
    halves = []
    for title, drawn in (("ground truth", target), ("detections", found)):
        scores, crowd = drawn.get("scores"), drawn.get("crowd")
        picture = draw_detections(image, drawn["boxes"], drawn["labels"], scores, class_names, crowd, CARD_PEN)
        halves.append((f"{title}: {len(drawn['boxes'])}", picture))
    return joined(halves, upright=True, letters=CARD_PEN[1])


def class_caption(class_names: Sequence[str], label: int) -> str:
    """The name of a class, or its number where no font has the letters."""
    return drawable(class_names[label], f"class {label + 1}")


def class_color(label: int) -> Color:
    """RGB of a class: consecutive hues are a golden section apart, every five labels get paler or darker."""
    hue = label * GOLDEN_SECTION % 1
    saturation, value = ((1.0, 0.95), (0.55, 1.0), (1.0, 0.65), (0.55, 0.75))[label // 5 % 4]
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def _dashed_rectangle(draw: ImageDraw.ImageDraw, rectangle: Rectangle, outline: Color, width: int) -> None:
    x1, y1, x2, y2 = rectangle
    dash = 4 * width + 2
    for start in range(int(x1), int(x2) + 1, 2 * dash):
        for top in (y1, y2 - width + 1):
            draw.rectangle((start, top, min(start + dash, x2), top + width - 1), fill=outline)
    for start in range(int(y1), int(y2) + 1, 2 * dash):
        for left in (x1, x2 - width + 1):
            draw.rectangle((left, start, left + width - 1, min(start + dash, y2)), fill=outline)


def _pen(size: tuple[int, int]) -> Pen:
    """One that suits a picture of (width, height)."""
    return max(1, round(min(size) / 200)), min(24, max(10, round(min(size) / 30)))


def _font(letters: int, text: str) -> ImageFont.FreeTypeFont:
    return _load_font(font_file(text), letters)


@functools.cache
def _load_font(path: str | None, letters: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.truetype(path, letters) if path else ImageFont.load_default(letters)
    assert isinstance(font, ImageFont.FreeTypeFont)  # as Pillow with FreeType gives for a size
    return font


def _caption_place(extent: Rectangle, box: Rectangle, size: tuple[int, int], taken: list[Rectangle]) -> Rectangle:
    """Place of a caption: above, in or below its box, where it covers least of the earlier captions."""
    width, height = extent[2] + 2, extent[3] + 2
    x1, y1, x2, y2 = box
    corners = [(x, y) for y in (y1 - height, y1, y2, y2 - height) for x in (x1, x2 - width)]
    places = []
    for x, y in corners:
        x, y = max(0, min(x, size[0] - 1 - width)), max(0, min(y, size[1] - 1 - height))
        places.append((x, y, x + width, y + height))
    return min(places, key=lambda place: sum(_overlap(place, other) for other in taken))


def _overlap(a: Rectangle, b: Rectangle) -> float:
    return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))


def _draw_caption(
    draw: ImageDraw.ImageDraw, place: Rectangle, caption: str, font: ImageFont.FreeTypeFont, color: Color
) -> None:
    luma = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]  # ITU-R BT.601
    draw.rectangle(place, fill=color)
    draw.text((place[0] + 2, place[1] + 1), caption, fill="black" if luma > 120 else "white", font=font)
