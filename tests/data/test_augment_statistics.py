"""The distributions of the SSD augmentation against those of torchvision.transforms.v2, which has the same recipe.

Equal up to chance: two-sample Kolmogorov-Smirnov at the level 0.001, shares within 3.3 standard deviations; fixed
seeds. Where the two recipes differ by design, the test says how it makes them comparable.
"""

import colorsys
import math

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from data.augment import distort_colours, random_canvas, random_crop

HEIGHT, WIDTH = 480, 640
IMAGE = tv_tensors.Image(torch.zeros(3, HEIGHT, WIDTH, dtype=torch.uint8))


def assert_same_distribution(a: list[float], b: list[float]) -> None:
    a, b = (torch.tensor(values, dtype=torch.float64).sort().values for values in (a, b))
    assert min(len(a), len(b)) >= 300
    points = torch.cat([a, b])
    below = [torch.searchsorted(values, points, right=True) / len(values) for values in (a, b)]
    assert (below[0] - below[1]).abs().max() < 1.95 * math.sqrt(1 / len(a) + 1 / len(b))


def assert_same_share(a: list[bool], b: list[bool]) -> None:
    counts, sizes = (sum(a), sum(b)), (len(a), len(b))
    share = sum(counts) / sum(sizes)
    deviation = math.sqrt(share * (1 - share) * sum(1 / size for size in sizes))
    assert abs(counts[0] / sizes[0] - counts[1] / sizes[1]) < 3.3 * deviation


def test_canvas() -> None:
    torch.manual_seed(0)
    ours = [random_canvas(HEIGHT, WIDTH) for _ in range(3000)]
    zoom_out = v2.RandomZoomOut()
    assert_same_share([window != (0, 0, WIDTH, HEIGHT) for window in ours], [True, False] * round(5000 * zoom_out.p))
    expanded = [window for window in ours if window != (0, 0, WIDTH, HEIGHT)]
    theirs = [zoom_out.make_params([IMAGE])["padding"] for _ in range(1500)]  # left, top, right, bottom
    for axis, side in ((0, WIDTH), (1, HEIGHT)):
        ratios = [(window[axis + 2] - window[axis]) / side for window in expanded]
        assert_same_distribution(ratios, [1 + (pad[axis] + pad[axis + 2]) / side for pad in theirs])
        assert_same_distribution([-window[axis] / side for window in expanded], [pad[axis] / side for pad in theirs])


# torchvision asks the IoU of some object and we of every one: with one object that is the same
def test_crop() -> None:
    torch.manual_seed(1)
    boxes = torch.tensor([[150.0, 100, 500, 400]])
    ours = [random_crop((0, 0, WIDTH, HEIGHT), boxes) for _ in range(600)]
    crop = v2.RandomIoUCrop(trials=50)
    inputs = [IMAGE, tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(HEIGHT, WIDTH))]
    theirs = [crop.make_params(inputs) for _ in range(600)]
    assert_same_share([window == (0, 0, WIDTH, HEIGHT) for window in ours], [not params for params in theirs])
    cropped = [window for window in ours if window != (0, 0, WIDTH, HEIGHT)]
    theirs = [params for params in theirs if params]
    assert_same_distribution([window[0] for window in cropped], [params["left"] for params in theirs])
    assert_same_distribution([window[1] for window in cropped], [params["top"] for params in theirs])
    assert_same_distribution([right - left for left, _, right, _ in cropped], [params["width"] for params in theirs])
    assert_same_distribution([low - top for _, top, _, low in cropped], [params["height"] for params in theirs])


def measured_changes(pixels: Tensor) -> dict[str, float]:
    """What was done to the probe of `test_colours`, from its pixels; rounding makes it inexact by some percent."""
    dark, light, pale, red = pixels[:, 0].T.tolist()
    contrast = (light[0] - dark[0]) / 80
    hue = colorsys.rgb_to_hsv(*red)[0]
    return {
        "brightness": light[0] / contrast - 130,
        "contrast": contrast,
        "saturation": (max(pale) - min(pale)) / (60 * contrast),
        "hue": hue - 1 if hue > 0.5 else hue,
    }


def test_colours() -> None:
    # two greys, which saturation and hue leave alone, and two colours that no change drives beyond 0..255
    probe = torch.tensor([[50, 50, 50], [130, 130, 130], [130, 70, 70], [130, 0, 0]], dtype=torch.uint8).T[:, None]
    torch.manual_seed(2)
    ours = [measured_changes(distort_colours(probe)) for _ in range(3000)]
    distort = v2.RandomPhotometricDistort()
    theirs = [distort.make_params([IMAGE]) for _ in range(3000)]
    # torchvision's brightness is a factor: at white, which it would shift most, as many grey levels as ours; a change
    # counts as one beyond what rounding can feign
    for name, scale, neutral, smallest in (
        ("brightness", 255, 1, 8),
        ("contrast", 1, 1, 0.06),
        ("saturation", 1, 1, 0.12),
        ("hue", 1, 0, 0.015),
    ):
        factors = [neutral if params[f"{name}_factor"] is None else params[f"{name}_factor"] for params in theirs]
        expected = [scale * (factor - neutral) for factor in factors]
        found = [changes[name] - (neutral if scale == 1 else 0) for changes in ours]
        assert_same_share([abs(each) > smallest for each in found], [abs(each) > smallest for each in expected])
        assert_same_distribution(
            [each for each in found if abs(each) > smallest], [each for each in expected if abs(each) > smallest]
        )
