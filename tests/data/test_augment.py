import colorsys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import box_iou
from torchvision.transforms.v2 import functional as F

from data import augment
from data.augment import cut_window, distort_colours, random_canvas, random_crop, random_flip, random_window, turn_hue


def rgb_noise(height: int, width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)


def make_target(boxes: list, crowd: list | None = None) -> dict:
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return {
        "boxes": boxes,
        "labels": torch.arange(len(boxes)),
        "crowd": torch.tensor(crowd or [False] * len(boxes), dtype=torch.bool),
    }


@pytest.mark.parametrize("turn", [-0.05, -0.01, 0.0, 0.03, 0.05, 1 / 6])
def test_hue_turns_as_torchvision_turns_it(turn: float) -> None:
    pixels = torch.cat([rgb_noise(40, 50).float() / 255, torch.full((3, 2, 50), 0.3), torch.zeros(3, 1, 50)], dim=1)
    torch.testing.assert_close(turn_hue(pixels, turn), F.adjust_hue(pixels, turn), rtol=0, atol=2e-6)


# A draw below ½ switches on: brightness, contrast, saturation, hue.
@pytest.mark.parametrize("switches", [(0, 1, 1, 1), (1, 0, 1, 1), (1, 1, 0, 1), (1, 1, 1, 0), (0, 0, 0, 0)])
@pytest.mark.parametrize("contrast_first", [True, False])
def test_colours_change_as_hsv_arithmetic_says(
    monkeypatch: pytest.MonkeyPatch, switches: tuple[int, ...], contrast_first: bool
) -> None:
    amounts = (0.8, 0.3, 0.75, 0.1)
    draws = iter([torch.tensor([*switches, 0.0 if contrast_first else 1.0]), torch.tensor(amounts)])
    monkeypatch.setattr(torch, "rand", lambda *shape: next(draws))
    image = rgb_noise(12, 10)
    result = distort_colours(image).permute(1, 2, 0).reshape(-1, 3)

    def reference(rgb: np.ndarray) -> np.ndarray:
        brightness, contrast, saturation, hue = (switch == 0 for switch in switches)
        factor = 0.5 + 0.3
        rgb = rgb / 255
        if brightness:
            rgb = np.clip(rgb + (-32 + 0.8 * 64) / 255, 0, 1)
        if contrast and contrast_first:
            rgb = np.clip(rgb * factor, 0, 1)
        if saturation or hue:
            h, s, v = colorsys.rgb_to_hsv(*rgb)
            s = s * (0.5 + 0.75) if saturation else s
            rgb = np.clip(colorsys.hsv_to_rgb(h, s, v), 0, 1)  # S above 1 gives negative channels
            h, s, v = colorsys.rgb_to_hsv(*rgb)
            rgb = np.array(colorsys.hsv_to_rgb((h + (-18 + 0.1 * 36) / 360) % 1 if hue else h, s, v))
        if contrast and not contrast_first:
            rgb = np.clip(rgb * factor, 0, 1)
        return rgb * 255

    expected = [reference(pixel) for pixel in image.permute(1, 2, 0).reshape(-1, 3).double().numpy()]
    assert np.abs(result.numpy() - np.array(expected)).max() < 0.51  # rounded once, to the nearest


def test_each_colour_change_happens_half_of_the_time_within_its_range() -> None:
    torch.manual_seed(0)
    image = torch.full((3, 4, 5), 100, dtype=torch.uint8)
    results = torch.stack([distort_colours(image) for _ in range(2000)])
    assert results.dtype == torch.uint8
    assert results.shape == (2000, 3, 4, 5)
    # Grey changes by brightness and contrast only: by neither in a quarter of the cases.
    assert 0.22 < (results == 100).flatten(1).all(1).double().mean() < 0.28
    assert 34 <= results.min() <= 42  # (100 - 32) · 0.5, brightness coming before contrast
    assert 188 <= results.max() <= 198  # (100 + 32) · 1.5


def test_an_empty_part_of_an_image_stays_empty() -> None:
    assert distort_colours(torch.zeros(3, 0, 7, dtype=torch.uint8)).shape == (3, 0, 7)


def test_the_canvas_holds_the_image_anywhere_at_up_to_four_times_its_size() -> None:
    torch.manual_seed(0)
    windows = torch.tensor([random_canvas(60, 100) for _ in range(2000)], dtype=torch.float64)
    left, top, right, bottom = windows.unbind(1)
    assert (left <= 0).all() and (top <= 0).all() and (right >= 100).all() and (bottom >= 60).all()
    whole = (windows == torch.tensor([0, 0, 100, 60])).all(1)
    assert 0.46 < whole.double().mean() < 0.54
    ratio = ((right - left) / 100)[~whole]
    assert torch.allclose(ratio, (bottom - top)[~whole] / 60, atol=1 / 60 + 1e-9)
    assert ratio.max() <= 4 and 2.4 < ratio.mean() < 2.6
    position = (-left / (right - left - 100).clamp(min=1))[~whole & (right - left > 150)]
    assert 0.47 < position.mean() < 0.53


@pytest.mark.parametrize("min_iou", [0.0, 0.1, 0.3, 0.5])
def test_crops_keep_the_limits_of_their_option(monkeypatch: pytest.MonkeyPatch, min_iou: float) -> None:
    torch.manual_seed(1)
    monkeypatch.setattr(augment, "CROP_OPTIONS", (min_iou,))
    boxes = torch.tensor([[20.0, 10, 120, 90], [40, 20, 150, 110]])
    canvas = (-10, -20, 190, 130)
    for _ in range(100):
        window = random_crop(canvas, boxes)
        left, top, right, bottom = window
        assert canvas[0] <= left < right <= canvas[2] and canvas[1] <= top < bottom <= canvas[3]
        width, height = right - left, bottom - top
        assert width >= 0.3 * 200 - 1 and height >= 0.3 * 150 - 1
        assert 0.5 - 0.02 <= height / width <= 2 + 0.05  # limits hold before rounding to pixels
        assert box_iou(boxes, torch.tensor([window], dtype=torch.float32)).min() >= min_iou
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        assert any(left < x < right and top < y < bottom for x, y in centres.tolist())


def test_the_whole_canvas_is_one_of_seven_options_and_all_others_need_no_object() -> None:
    torch.manual_seed(2)
    canvas = (-30, -40, 210, 160)
    windows = [random_crop(canvas, torch.zeros(0, 4)) for _ in range(1400)]
    assert 150 < sum(window == canvas for window in windows) < 250  # 200 expected


def test_objects_that_no_crop_can_satisfy_leave_the_whole_canvas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augment, "CROP_OPTIONS", (None, 0.9))
    torch.manual_seed(3)
    boxes = torch.tensor([[0.0, 0, 5, 5], [90, 90, 95, 95]])
    assert {random_crop((0, 0, 100, 100), boxes) for _ in range(20)} == {(0, 0, 100, 100)}


@settings(max_examples=60, deadline=None)
@given(left=st.integers(-60, 70), top=st.integers(-50, 60), width=st.integers(1, 120), height=st.integers(1, 100))
def test_a_window_equals_expanding_and_then_cropping(left: int, top: int, width: int, height: int) -> None:
    image = rgb_noise(40, 50)
    target = make_target(
        [[2, 3, 20, 30], [10, 5, 50, 40], [30, 20, 33, 24], [0, 0, 50, 12]], [False, False, False, True]
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(augment, "distort_colours", lambda pixels: pixels)
        found, result = cut_window(image, target, (left, top, left + width, top + height), distort=True)

    canvas = torch.tensor([124, 116, 104], dtype=torch.uint8)[:, None, None].repeat(1, 300, 300)
    canvas[:, 100:140, 100:150] = image
    assert torch.equal(found, canvas[:, 100 + top : 100 + top + height, 100 + left : 100 + left + width])

    kept = []
    for (x1, y1, x2, y2), label, crowd in zip(
        target["boxes"].tolist(), target["labels"].tolist(), target["crowd"].tolist(), strict=True
    ):
        inside = left < (x1 + x2) / 2 < left + width and top < (y1 + y2) / 2 < top + height
        x1, x2 = (min(max(x - left, 0), width) for x in (x1, x2))
        y1, y2 = (min(max(y - top, 0), height) for y in (y1, y2))
        if (inside or crowd) and x2 > x1 and y2 > y1:
            kept.append(([x1, y1, x2, y2], label, crowd))
    assert result["boxes"].tolist() == [box for box, _, _ in kept]
    assert result["labels"].tolist() == [label for _, label, _ in kept]
    assert result["crowd"].tolist() == [crowd for _, _, crowd in kept]


def test_a_window_leaves_the_colours_alone_unless_told_to_distort_them() -> None:
    torch.manual_seed(5)
    image = rgb_noise(8, 8)
    found = {
        distort: {cut_window(image, make_target([]), (0, 0, 8, 8), distort)[0].numpy().tobytes() for _ in range(20)}
        for distort in (False, True)
    }
    assert found[False] == {image.numpy().tobytes()} and len(found[True]) > 10


@pytest.mark.parametrize(
    "size, lefts, tops",
    [
        ((4, 5), range(6), range(3)),  # of an image of 6×10: all places inside it
        ((6, 10), range(1), range(1)),
        ((9, 12), range(-2, 1), range(-3, 1)),  # the image anywhere inside the window
        ((9, 5), range(6), range(-3, 1)),
    ],
)
def test_windows_lie_anywhere_with_the_same_probability(size: tuple[int, int], lefts: range, tops: range) -> None:
    torch.manual_seed(6)
    places: dict[tuple[int, int], int] = {}
    draws = 200 * len(lefts) * len(tops)
    for _ in range(draws):
        left, top, right, bottom = random_window(6, 10, size)
        assert (bottom - top, right - left) == size
        places[left, top] = places.get((left, top), 0) + 1
    assert set(places) == {(left, top) for left in lefts for top in tops}
    assert all(140 < count < 260 for count in places.values())  # 200 each, ± 4 standard deviations


@pytest.mark.parametrize("vertical", [False, True])
def test_half_of_the_images_are_mirrored_with_their_boxes(vertical: bool) -> None:
    torch.manual_seed(4)
    image, target = rgb_noise(6, 10), make_target([[1, 2, 4, 3], [0, 0, 10, 6]])
    mirrored_boxes = [[1, 3, 4, 4], [0, 0, 10, 6]] if vertical else [[6, 2, 9, 3], [0, 0, 10, 6]]
    count = 0
    for _ in range(400):
        found, result = random_flip(image, target, vertical)
        if not torch.equal(found, image):
            count += 1
            assert torch.equal(found, image.flip(1 if vertical else 2))
            assert result["boxes"].tolist() == mirrored_boxes
        else:
            assert result["boxes"].tolist() == target["boxes"].tolist()
    assert 160 < count < 240
