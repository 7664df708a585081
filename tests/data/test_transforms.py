import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from data.boxes import scale_boxes
from data.transforms import eval_transform, resize, train_transform

GREEN, GREY = (40, 220, 40), (90, 90, 90)


def painted(height: int, width: int, box: tuple[int, int, int, int]) -> tuple[Tensor, dict]:
    """A green rectangle on grey, and the target that says where it is."""
    image = torch.tensor(GREY, dtype=torch.uint8)[:, None, None].repeat(1, height, width)
    x1, y1, x2, y2 = box
    image[:, y1:y2, x1:x2] = torch.tensor(GREEN, dtype=torch.uint8)[:, None, None]
    target = {
        "boxes": torch.tensor([box], dtype=torch.float32),
        "labels": torch.tensor([5]),
        "crowd": torch.tensor([False]),
    }
    return image, target


def extent_of_green(image: Tensor) -> list[float]:
    """Box of the pixels in which green leads by at least half of its largest lead."""
    red, green, blue = image.float()
    lead = green - torch.maximum(red, blue)
    y, x = (lead > lead.max() / 2).nonzero().unbind(1)
    return [float(x.min()), float(y.min()), float(x.max() + 1), float(y.max() + 1)]


@pytest.mark.parametrize("name", ["ssd", "flip", "hvflip"])
@pytest.mark.parametrize("size", [(256, 256), (192, 320)])
def test_boxes_stay_on_what_they_enclose(name: str, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    transform = train_transform(name, size)
    places = set()
    for _ in range(60):
        image, target = transform(*painted(300, 400, (120, 60, 260, 210)))
        assert image.dtype == torch.uint8
        assert image.shape == (3, *size)
        (box,) = target["boxes"].tolist()
        assert (target["labels"].tolist(), target["crowd"].tolist()) == ([5], [False])
        assert extent_of_green(image) == pytest.approx(box, abs=2)
        places.add(tuple(box))
    assert len(places) >= {"ssd": 50, "flip": 2, "hvflip": 4}[name]


@pytest.mark.parametrize("name", ["ssd", "flip", "hvflip", "crop"])
@pytest.mark.parametrize("height, width", [(1, 1), (2, 3), (1, 300), (33, 17)])
def test_any_image_size_and_no_objects_will_do(name: str, height: int, width: int) -> None:
    torch.manual_seed(0)
    transform = train_transform(name, (64, 96))
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "crowd": torch.zeros(0).bool()}
    for _ in range(20):
        image, target = transform(torch.zeros(3, height, width, dtype=torch.uint8), dict(empty))
        assert image.shape == (3, 64, 96)
        assert target["boxes"].shape == (0, 4)
        image, target = transform(*painted(height, width, (0, 0, width, height)))
        assert (target["boxes"][:, 2:] > target["boxes"][:, :2]).all()


def test_only_crowd_regions_do_not_bind_the_crop() -> None:
    torch.manual_seed(0)
    transform = train_transform("ssd", (64, 64))
    image, target = painted(100, 100, (0, 0, 10, 10))
    target["crowd"] = torch.tensor([True])
    counts = {len(transform(image, target)[1]["boxes"]) for _ in range(40)}
    assert counts == {0, 1}


def test_crops_are_windows_at_native_scale_with_the_objects_whose_centre_they_show() -> None:
    torch.manual_seed(1)
    transform = train_transform("crop", (40, 50))
    image, target = painted(100, 120, (50, 40, 70, 60))  # centre 60, 50
    target["boxes"] = torch.cat([target["boxes"], torch.tensor([[0.0, 0, 120, 100]])])
    target["labels"], target["crowd"] = torch.tensor([5, 6]), torch.tensor([False, True])
    seen = set()
    for _ in range(300):
        cut, found = transform(image, target)
        assert cut.shape == (3, 40, 50)
        assert found["boxes"][-1].tolist() == [0, 0, 50, 40] and found["labels"][-1] == 6 and found["crowd"][-1]
        green = (cut[1] == GREEN[1]).nonzero()
        whole = len(green) == 20 * 20
        kept = len(found["boxes"]) == 2
        seen.add((kept, whole, len(green) > 0))
        if kept:  # the visible part of the box is what is green
            (top, left), (bottom, right) = green.amin(0).tolist(), green.amax(0).tolist()
            assert found["boxes"][0].tolist() == [left, top, right + 1, bottom + 1]
        if whole:
            assert kept
    assert seen == {(True, True, True), (True, False, True), (False, False, True), (False, False, False)}


def test_a_crop_pads_an_image_that_is_smaller() -> None:
    torch.manual_seed(2)
    corners = set()
    for _ in range(100):
        cut, found = train_transform("crop", (32, 32))(*painted(30, 40, (0, 0, 40, 30)))
        left, top, right, bottom = map(int, found["boxes"][0])
        assert (left, right) == (0, 32) and bottom - top == 30
        assert (cut[:, top:bottom, left:right] == torch.tensor(GREEN, dtype=torch.uint8)[:, None, None]).all()
        padding = torch.cat([cut[:, :top], cut[:, bottom:]], dim=1)
        assert (padding == torch.tensor([124, 116, 104], dtype=torch.uint8)[:, None, None]).all()
        corners.add(top)
    assert corners == {0, 1, 2}


def test_plain_flips_change_no_pixel_but_by_mirroring() -> None:
    torch.manual_seed(0)
    image = torch.randint(0, 256, (3, 20, 30), dtype=torch.uint8)
    target = painted(20, 30, (1, 2, 5, 6))[1]
    results = {train_transform("hvflip", (20, 30))(image, target)[0].contiguous().numpy().tobytes() for _ in range(60)}
    assert results == {image.flip(dims).contiguous().numpy().tobytes() for dims in ([], [1], [2], [1, 2])}


@pytest.mark.parametrize(
    "size, expected",
    [
        ((480, 640), (500, 667)),  # 500 / 480 = 1.0417; 640 · 1.0417 = 666.7
        ((640, 480), (667, 500)),
        ((427, 640), (500, 749)),  # 749.4
        ((300, 1000), (250, 833)),  # the long side binds: 0.833
        ((500, 833), (500, 833)),
        ((2, 5000), (1, 833)),  # 0.33 rounds to 0: at least one pixel
    ],
)
def test_short_side_and_long_side_limits(size: tuple[int, int], expected: tuple[int, int]) -> None:
    transform = eval_transform(500, 833)
    assert transform.output_size(size) == expected
    image, _ = transform(*painted(*size, (0, 0, 1, 1)))
    assert image.shape == (3, *expected)


@given(height=st.integers(1, 5000), width=st.integers(1, 5000))
def test_sizes_stay_within_the_limits_and_reach_one(height: int, width: int) -> None:
    new = eval_transform(500, 833).output_size((height, width))
    assert min(new) <= 500 and max(new) <= 833
    assert min(new) == 500 or max(new) == 833


def test_a_fixed_size_is_met_exactly() -> None:
    transform = eval_transform(size=(240, 320))
    assert transform.output_size((77, 1000)) == (240, 320)
    image, target = transform(*painted(77, 1000, (100, 7, 300, 70)))
    assert image.shape == (3, 240, 320)
    assert target["boxes"].tolist() == [pytest.approx([32, 7 * 240 / 77, 96, 70 * 240 / 77], rel=1e-6)]


@pytest.mark.parametrize("size", [(500, 667), (37, 50), (64, 64)])
def test_pixels_are_interpolated_bilinearly_without_antialiasing(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    image = torch.randint(0, 256, (60, 80, 3), dtype=torch.uint8).permute(2, 0, 1)
    found, _ = resize(image, {"boxes": torch.zeros(0, 4)}, size)
    expected = torch.nn.functional.interpolate(image[None].double(), size, mode="bilinear", antialias=False)[0]
    error = found - expected
    assert error.abs().max() <= 1.01  # rounded along each axis in turn
    assert error.mean().abs() < 0.1


sides = st.tuples(st.integers(1, 4000), st.integers(1, 4000))


@settings(deadline=None)
@given(orig_size=sides, fractions=st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4))
def test_boxes_map_back_to_the_file(orig_size: tuple[int, int], fractions: list[float]) -> None:
    height, width = orig_size
    boxes = torch.tensor([fractions]) * torch.tensor([width, height, width, height])
    new_size = eval_transform(500, 833).output_size(orig_size)
    target = {"boxes": boxes}
    image = torch.zeros(1, 1, 1, dtype=torch.uint8).expand(3, height, width)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("data.transforms.F.resize", lambda image, *_, **__: image)  # the boxes are the point
        resized = resize(image, target, new_size)[1]["boxes"]
    exact = boxes.double() * torch.tensor([new_size[1] / width, new_size[0] / height] * 2)
    torch.testing.assert_close(resized.double(), exact, rtol=3e-7, atol=0)
    torch.testing.assert_close(scale_boxes(resized, new_size, orig_size), boxes, rtol=5e-7, atol=0)


@pytest.mark.parametrize("name", ["ssd", "flip"])
def test_multi_scale_training_draws_the_short_side_and_keeps_the_aspect_ratio(name: str) -> None:
    torch.manual_seed(0)
    transform = train_transform(name, (64, 64), short_sides=(90, 93), long_side=150)
    short_sides = set()
    for _ in range(60):
        image, target = transform(*painted(100, 130, (20, 10, 90, 70)))
        height, width = image.shape[-2:]
        assert max(height, width) <= 150
        if name == "flip":
            assert width / height == pytest.approx(1.3, rel=0.01)
        if max(height, width) < 150:
            short_sides.add(min(height, width))
        if len(target["boxes"]):
            assert extent_of_green(image) == pytest.approx(target["boxes"][0].tolist(), abs=3)
    assert short_sides == {90, 91, 92, 93}


@pytest.mark.parametrize("size", [(480, 640), (427, 640), (640, 333), (97, 500), (500, 375)])
def test_torchvisions_rule_is_torchvisions(size: tuple[int, int]) -> None:
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[3.0, 4, 70, 80]])
    theirs = GeneralizedRCNNTransform(160, 266, [0.0] * 3, [1.0] * 3).eval()
    batch, targets = theirs([image / 255], [{"boxes": boxes}])
    transform = eval_transform(160, 266, as_torchvision=True)
    resized, target = transform(image, {"boxes": boxes})
    height, width = batch.image_sizes[0]
    assert tuple(resized.shape[-2:]) == transform.output_size(size) == (height, width)
    torch.testing.assert_close(resized / 255, batch.tensors[0, :, :height, :width], rtol=0, atol=1e-6)
    torch.testing.assert_close(target["boxes"], targets[0]["boxes"])


@pytest.mark.parametrize("as_torchvision", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (2000, 3)])
def test_no_image_is_too_narrow_to_be_resized(size: tuple[int, int], as_torchvision: bool) -> None:
    transform = eval_transform(64, 128, as_torchvision=as_torchvision)
    boxes = torch.tensor([[0.0, 0, size[1], size[0]]])
    image, target = transform(torch.zeros(3, *size, dtype=torch.uint8), {"boxes": boxes})
    height, width = image.shape[-2:]
    assert (height, width) == transform.output_size(size)
    assert min(height, width) >= 1 and max(height, width) <= 128
    assert target["boxes"].tolist() == [[0, 0, width, height]]
    torch.testing.assert_close(scale_boxes(target["boxes"], (height, width), size), boxes)


def test_transforms_can_be_pickled() -> None:
    image, target = painted(60, 80, (10, 10, 50, 50))
    for transform in (
        *(train_transform(n, (64, 64)) for n in ("ssd", "flip", "hvflip", "crop")),
        eval_transform(50, 83),
    ):
        results = []
        for copy in (transform, pickle.loads(pickle.dumps(transform))):
            torch.manual_seed(7)
            results.append(copy(image, target)[0])
        assert torch.equal(*results)


def test_short_sides_need_a_limit_of_the_long_one() -> None:
    with pytest.raises(ValueError, match="short_sides need a long_side"):
        train_transform("flip", (64, 64), short_sides=(90, 93))


def test_an_unknown_augmentation_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown augmentation 'mosaic': must be ssd, flip, hvflip or crop"):
        train_transform("mosaic", (64, 64))
