"""The random steps of the training pipelines: mirroring, windows, and those of SSD (arXiv 1512.02325, section 2.2).

Each SSD step follows the authors' released pipeline; its docstring says where that departs from the SSD paper.
A window is (left, top, right, bottom) in whole pixels of the image; what of it lies outside the image is filled.
"""

from typing import Any

import torch
from torch import Tensor
from torchvision.ops import box_iou
from torchvision.transforms.v2 import functional as F

from data.boxes import Size, mirror_boxes
from data.images import blank_images

Target = dict[str, Any]  # as CocoDetection describes it
Window = tuple[int, int, int, int]

BRIGHTNESS = 32 / 255  # largest shift
FACTORS = (0.5, 1.5)  # of contrast and saturation
HUE = 18 / 360  # largest shift, of a full turn
MAX_EXPANSION = 4.0
CROP_TRIALS = 50
CROP_MIN_SIDE = 0.3  # of the canvas's side
CROP_ASPECT = (0.5, 2.0)  # height / width
CROP_OPTIONS = (None, 0.0, 0.1, 0.3, 0.5, 0.7, 0.9)  # least IoU of window and objects; None: no crop


def distort_colours(image: Tensor) -> Tensor:
    """Brightness ±32, contrast ×½–1½, saturation ×½–1½, hue ±18°, each half of the time.

    Contrast comes before or after the last two. As in the released code it multiplies the pixels, and saturation
    multiplies the S of HSV (torchvision's functions blend with grey). Values are clamped to 0..255 after every
    step, where the released code lets them run beyond.

    Args:
        image: (3, H, W) uint8, RGB; may be empty.
    Returns:
        The same shape and type.
    """
    brightness, contrast, saturation, hue, contrast_first = (torch.rand(5) < 0.5).tolist()
    shift, contrast_factor, saturation_factor, turn = torch.rand(4).tolist()
    if image.numel() == 0 or not (brightness or contrast or saturation or hue):
        return image
    pixels = image.to(torch.float32, memory_format=torch.contiguous_format) / 255
    if brightness:
        pixels = (pixels + _between(-BRIGHTNESS, BRIGHTNESS, shift)).clamp_(0, 1)
    if contrast and contrast_first:
        pixels = F.adjust_brightness(pixels, _between(*FACTORS, contrast_factor))
    if saturation:
        # S × f at the same H and V moves each channel to V - f·(V - channel), where V is the largest channel.
        pixels = pixels.amax(0, keepdim=True).lerp(pixels, _between(*FACTORS, saturation_factor)).clamp_(0, 1)
    if hue:
        pixels = turn_hue(pixels, _between(-HUE, HUE, turn))
    if contrast and not contrast_first:
        pixels = F.adjust_brightness(pixels, _between(*FACTORS, contrast_factor))
    return pixels.mul_(255).round_().to(torch.uint8)


def turn_hue(pixels: Tensor, turn: float | Tensor) -> Tensor:
    """Shifts H of HSV by `turn`, a fraction of the circle up to 1/6: torchvision's adjust_hue at a quarter of the cost.

    Args:
        pixels: (3, H, W) float, RGB in 0..1.
    """
    red, green, blue = pixels
    value = pixels.amax(0)
    chroma = value - pixels.amin(0)
    sixths = torch.where(value == green, blue - red + 2 * chroma, red - green + 4 * chroma)
    sixths = torch.where(value == red, green - blue, sixths) / chroma.clamp(min=1e-12) + 6 * turn
    # A channel is V within one sixth of its own hue, V - C beyond two sixths, linear between.
    opposite = pixels.new_tensor([3.0, 5.0, 1.0])[:, None, None]
    loss = (sixths - opposite).abs_().sub_(3).abs_().sub_(1).clamp_(0, 1)
    return torch.addcmul(value, chroma, loss, value=-1)


def random_canvas(height: int, width: int) -> Window:
    """Half of the time the image itself, else a canvas of 1–4× its sides with the image anywhere on it."""
    expand, scale, x, y = torch.rand(4).tolist()
    if expand < 0.5:
        return 0, 0, width, height
    ratio = _between(1, MAX_EXPANSION, scale)
    left, top = int(x * (width * ratio - width)), int(y * (height * ratio - height))
    return -left, -top, int(width * ratio) - left, int(height * ratio) - top


def random_crop(canvas: Window, boxes: Tensor) -> Window:
    """A window of the canvas by one of CROP_OPTIONS: the whole, any, or any of enough IoU with the objects.

    Its sides are 0.3–1 of the canvas's, height / width is ½–2, and the centre of some object lies inside. As in
    the released code EVERY object must reach the IoU; SSD asks it of one.

    Args:
        canvas: what to crop from.
        boxes: (n, 4) xyxy in pixels of the image; without objects, any window will do.
    """
    left, top, right, bottom = canvas
    origin = boxes.new_tensor([left, top])
    extent = boxes.new_tensor([right - left, bottom - top])
    centres = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2
    while True:
        min_iou = CROP_OPTIONS[int(torch.randint(len(CROP_OPTIONS), ()))]
        if min_iou is None:
            return canvas
        draws = torch.rand(CROP_TRIALS, 4)
        sides = extent * _between(CROP_MIN_SIDE, 1, draws[:, :2])
        offset = (extent - sides) * draws[:, 2:]
        corner, opposite = origin + offset.floor(), origin + (offset + sides).floor()
        aspect = sides[:, 1] / sides[:, 0]
        valid = (aspect >= CROP_ASPECT[0]) & (aspect <= CROP_ASPECT[1]) & (opposite > corner).all(1)
        if len(boxes):
            inside = ((centres > corner) & (centres < opposite)).all(2)  # (n, trials)
            iou = box_iou(boxes, torch.cat([corner, opposite], 1))
            valid &= inside.any(0) & (iou.amin(0) >= min_iou)
        if valid.any():
            first = int(valid.nonzero()[0])
            return (*corner[first].int().tolist(), *opposite[first].int().tolist())


def random_window(height: int, width: int, size: Size) -> Window:
    """A window of size (height, width) anywhere in an image; where it is larger, the image is anywhere in it."""
    rooms = height - size[0], width - size[1]
    top, left = (int(torch.randint(min(0, room), max(0, room) + 1, ())) for room in rooms)
    return left, top, left + size[1], top + size[0]


def cut_window(image: Tensor, target: Target, window: Window, distort: bool) -> tuple[Tensor, Target]:
    """Puts what the window shows of the image on canvas of the window's size, with `distort` in distorted colours.

    This equals distorting, expanding and cropping in turn, at the cost of the window alone. Objects whose centre
    lies outside are dropped; of a crowd region its visible part stays.
    """
    left, top, right, bottom = window
    height, width = image.shape[-2:]
    x1, y1 = max(left, 0), max(top, 0)
    x2, y2 = max(x1, min(right, width)), max(y1, min(bottom, height))
    canvas = blank_images(1, bottom - top, right - left)[0]
    visible = image[:, y1:y2, x1:x2]
    canvas[:, y1 - top : y2 - top, x1 - left : x2 - left] = distort_colours(visible) if distort else visible

    boxes = target["boxes"] - target["boxes"].new_tensor([left, top, left, top])
    extent = boxes.new_tensor([right - left, bottom - top])
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    boxes = boxes.view(-1, 2, 2).clamp(min=0).minimum(extent).view(-1, 4)
    keep = ((centres > 0) & (centres < extent)).all(1) | target["crowd"]
    keep &= (boxes[:, 2:] > boxes[:, :2]).all(1)
    kept = {"boxes": boxes[keep], "labels": target["labels"][keep], "crowd": target["crowd"][keep]}
    return canvas, {**target, **kept}


def random_flip(image: Tensor, target: Target, vertical: bool = False) -> tuple[Tensor, Target]:
    """Mirrors left to right, or top to bottom if `vertical`, half of the time."""
    if torch.rand(()) < 0.5:
        return image, target
    flip, side = (F.vertical_flip, image.shape[-2]) if vertical else (F.horizontal_flip, image.shape[-1])
    boxes = mirror_boxes(target["boxes"], side, vertical)
    return flip(image), {**target, "boxes": boxes}


def _between(low: float, high: float, draw: float | Tensor) -> float | Tensor:
    """Carries a draw from [0, 1) to [low, high)."""
    return low + (high - low) * draw
