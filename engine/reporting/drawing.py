"""Boxes with captions drawn into images: for TensorBoard, for predictions and for the README."""

import colorsys
from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from data.transforms import resize
from engine.evaluation.evaluator import Example

MIN_SIDE = 320  # pixels of the longer side of an example
GAP = 8  # pixels between the halves of side_by_side
GOLDEN_SECTION = 0.618034

Color = tuple[int, int, int]
Rectangle = Sequence[float]  # x1, y1, x2, y2 in pixels


def draw_detections(
    image: Tensor,
    boxes: Tensor,
    labels: Tensor,
    scores: Tensor | None,
    class_names: Sequence[str],
    crowd: Tensor | None = None,
) -> Tensor:
    """Boxes in the colour of their class, each with a caption that stays inside the image.

    Args:
        image: (3, H, W) uint8, RGB; not changed.
        boxes: (n, 4) xyxy in its pixels; cut off at the border, left out where not finite.
        labels: (n,) integers in 0..K-1.
        scores: (n,), written behind the class name; the best is drawn on top. None for ground truth.
        class_names: K names.
        crowd: (n,) bool; crowd regions of the ground truth get a dashed outline. None: none is one.
    Returns:
        (3, H, W) uint8 on the CPU.
    """
    canvas = to_pil_image(image.cpu())
    draw = ImageDraw.Draw(canvas)
    font = _font(canvas.size)
    shown = boxes.isfinite().all(dim=1).nonzero().flatten()
    if scores is not None:
        shown = shown[scores[shown].argsort(stable=True)]
    right, bottom = canvas.width - 1, canvas.height - 1
    rectangles = boxes[shown].clamp(min=0).min(boxes.new_tensor([right, bottom, right, bottom])).tolist()
    shown_labels = labels[shown].tolist()
    captions = [class_names[label] for label in shown_labels]
    if scores is not None:
        shown_scores = scores[shown].tolist()
        captions = [f"{name} {score:.2f}" for name, score in zip(captions, shown_scores, strict=True)]

    dashed = [False] * len(shown_labels) if crowd is None else crowd[shown].tolist()
    captions = [
        f"{caption} (crowd)" if is_crowd else caption for caption, is_crowd in zip(captions, dashed, strict=True)
    ]

    line_width = max(1, round(min(canvas.size) / 200))
    for rectangle, label, is_crowd in zip(rectangles, shown_labels, dashed, strict=True):
        outline = _dashed_rectangle if is_crowd else ImageDraw.ImageDraw.rectangle
        outline(draw, rectangle, outline=class_color(label), width=line_width)
    taken: list[Rectangle] = []
    for rectangle, label, caption in reversed([*zip(rectangles, shown_labels, captions, strict=True)]):
        place = _caption_place(draw.textbbox((2, 1), caption, font), rectangle, canvas.size, taken)
        _draw_caption(draw, place, caption, font, class_color(label))
        taken.append(place)
    return pil_to_tensor(canvas)


def side_by_side(image: Tensor, target: dict, detections: dict, class_names: Sequence[str]) -> Tensor:
    """Ground truth on the left, detections on the right, each under a header that counts them.

    Args:
        image: (3, H, W) uint8, RGB.
        target: {"boxes": (n, 4) xyxy pixels, "labels": (n,)} and, where there are crowds, "crowd": (n,) bool.
        detections: the same and "scores": (m,); all of them are drawn.
        class_names: K names.
    Returns:
        (3, header + H, 2 W + 8) uint8 on the CPU.
    """
    height, width = image.shape[1:]
    font = _font((width, height))
    header = sum(font.getmetrics()) + 4
    canvas = Image.new("RGB", (2 * width + GAP, header + height), "white")
    draw = ImageDraw.Draw(canvas)
    for x, title, drawn in ((0, "ground truth", target), (width + GAP, "detections", detections)):
        half = draw_detections(
            image, drawn["boxes"], drawn["labels"], drawn.get("scores"), class_names, drawn.get("crowd")
        )
        draw.text((x + 2, 2), f"{title}: {len(drawn['boxes'])}", fill="black", font=font)
        canvas.paste(to_pil_image(half), (x, header))
    return pil_to_tensor(canvas)


def draw_example(example: Example, thresholds: Sequence[float | None], class_names: Sequence[str]) -> Tensor:
    """`side_by_side` with the detections at the operating point that LRP calls the best; a class without one shows
    none. Small images are enlarged.

    Args:
        thresholds: of the K classes.
    """
    image, target, found = example
    limits = torch.tensor([2.0 if threshold is None else threshold for threshold in thresholds])
    shown = found["scores"] >= limits[found["labels"]]
    found = {name: value[shown] for name, value in found.items()}
    scale = max(1, MIN_SIDE / max(target["size"]))  # captions would cover a small image
    size = tuple(round(side * scale) for side in target["size"])
    _, found = resize(image, found, size)
    image, target = resize(image, target, size)
    return side_by_side(image, target, found, class_names)


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


def _font(size: tuple[int, int]) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(min(24, max(10, round(min(size) / 30))))
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
