"""Drawn boxes: where, in which colour, and with captions that stay in the image."""

import torch

from engine.evaluation.evaluator import Example
from engine.reporting.drawing import CARD, CARD_PEN, Box, class_color, draw_boxes, draw_detections, draw_example, joined

NAMES = [f"class {i}" for i in range(80)]
GREY = torch.full((3, 120, 160), 90, dtype=torch.uint8)


def pixels_of(image: torch.Tensor, label: int) -> torch.Tensor:
    """(n, 2) rows (y, x) of the pixels that have the colour of a class."""
    return (image == torch.tensor(class_color(label)).view(3, 1, 1)).all(dim=0).nonzero()


def draw(boxes: list, labels: list, scores: list | None = None, image: torch.Tensor = GREY) -> torch.Tensor:
    boxes, labels = torch.tensor(boxes).view(-1, 4), torch.tensor(labels, dtype=torch.long)
    return draw_detections(image, boxes, labels, None if scores is None else torch.tensor(scores), NAMES)


def test_outline_follows_the_box_in_the_colour_of_the_class():
    image = draw([[40.0, 50.0, 100.0, 90.0]], [4])
    assert image.shape == GREY.shape and image.dtype == torch.uint8
    colored = {tuple(yx) for yx in pixels_of(image, 4).tolist()}
    for x in range(40, 101):
        assert {(50, x), (90, x)} <= colored
    for y in range(50, 91):
        assert {(y, 40), (y, 100)} <= colored
    assert not {(70, x) for x in range(42, 99)} & colored  # not filled
    ys, xs = zip(*[(y, x) for y, x in colored if y < 50], strict=True)  # the caption, above the box
    assert min(xs) >= 38 and max(xs) < 110 and min(ys) > 25
    assert (GREY == 90).all()


def test_no_boxes_leave_the_image_as_it_is():
    assert torch.equal(draw([], []), GREY)
    assert torch.equal(draw([], [], []), GREY)


def test_captions_stay_inside_the_image():
    margin = 2 * 12 * 30  # pixels that a caption fills at least, half of them taken by letters
    for box in ([0.0, 0.0, 159.0, 119.0], [150.0, 0.0, 159.0, 5.0], [-30.0, 100.0, 400.0, 300.0]):
        outline = 2 * (160 + 120)
        filled = len(pixels_of(draw([box], [1]), 1))
        assert filled > 0.4 * margin
        assert filled < outline + 3 * margin


def test_captions_of_boxes_in_one_place_do_not_cover_each_other():
    box = [50.0, 50.0, 110.0, 80.0]
    alone = [len(pixels_of(draw([box], [label], [0.5]), label)) for label in (0, 1)]
    both = draw([box, box], [0, 1], [0.5, 0.5])
    outline = 2 * (61 + 31)
    for label in (0, 1):
        assert len(pixels_of(both, label)) >= alone[label] - outline


def test_best_is_drawn_on_top_whatever_the_order():
    boxes, labels, scores = [[50.0, 50.0, 110.0, 80.0]] * 2, [2, 3], [0.9, 0.3]
    image = draw(boxes, labels, scores)
    assert tuple(image[:, 80, 100].tolist()) == class_color(2)
    assert torch.equal(image, draw(boxes[::-1], labels[::-1], scores[::-1]))


def test_boxes_that_are_not_finite_are_left_out():
    good = [40.0, 50.0, 100.0, 90.0]
    nan, inf = float("nan"), float("inf")
    image = draw([[nan, 0.0, 5.0, 5.0], good, [0.0, 0.0, inf, 5.0]], [1, 4, 2], [0.9, 0.8, 0.7])
    assert torch.equal(image, draw([good], [4], [0.8]))


def test_draws_into_tiny_images():
    tiny = torch.zeros(3, 5, 7, dtype=torch.uint8)
    assert draw([[1.0, 1.0, 4.0, 4.0]], [0], [0.5], tiny).shape == tiny.shape


def test_classes_have_colours_of_their_own():
    colors = torch.tensor([class_color(label) for label in range(80)], dtype=torch.float)
    assert len(colors.unique(dim=0)) == 80
    assert torch.cdist(colors[:20], colors[:20]).fill_diagonal_(999).min() > 40


def test_pictures_are_joined_beside_or_below_each_other_under_their_titles():
    pictures = [("ground truth: 1", GREY), ("", draw([[40.0, 50.0, 100.0, 90.0]], [4]))]
    height, width = GREY.shape[1:]
    beside = joined(pictures)
    header = beside.shape[1] - height
    assert beside.shape[2] == 2 * width + 8 and header > 10
    assert torch.equal(beside[:, header:, :width], GREY)
    assert torch.equal(beside[:, header:, -width:], pictures[1][1])
    assert (beside[:, :header, :width] < 100).any() and (beside[:, :header, -width:] == 255).all()
    below = joined(pictures, upright=True)
    assert below.shape[1:] == (2 * (header + height), width)
    assert torch.equal(below[:, -height:], pictures[1][1])


def test_an_example_is_as_wide_as_its_card_with_lines_of_three_pixels():
    target = {"boxes": torch.tensor([[40.0, 50.0, 100.0, 90.0]]), "labels": torch.tensor([4]), "size": (120, 160)}
    found = {"boxes": target["boxes"].repeat(2, 1), "labels": torch.tensor([1, 2]), "scores": torch.tensor([0.6, 0.4])}
    picture = draw_example(Example(GREY, target, found), [0.5] * len(NAMES), NAMES)
    assert picture.shape[2] == CARD
    upper, lower = picture.split(picture.shape[1] // 2, dim=1)
    line = pixels_of(upper[:, -20:], 4)  # no caption down there
    assert not len(line)
    column = pixels_of(upper[:, :, 200:201], 4)[:, 0]  # across both sides of the box, right of the caption
    assert len(column) == 2 * CARD_PEN[0]
    assert len(pixels_of(lower, 1)) and not len(pixels_of(lower, 2))  # below the threshold


def test_dashed_boxes_are_drawn_below_those_that_come_later():
    box = (40.0, 50.0, 100.0, 90.0)
    image = draw_boxes(GREY, [Box(box, "missed", (1, 2, 3), dashed=True), Box(box, "found", (4, 5, 6))])
    assert image[:, 90, 70].tolist() == [4, 5, 6]


def test_a_name_that_no_font_can_write_is_shown_by_its_number(monkeypatch):
    names = ["a", "\U000f0000\U000f0001"]  # of the private use area
    box, labels = torch.tensor([[40.0, 60.0, 100.0, 90.0]]), torch.tensor([1])
    drawn = draw_detections(GREY, box, labels, None, names)
    assert torch.equal(drawn, draw_detections(GREY, box, labels, None, ["a", "class 2"]))
    assert not torch.equal(drawn, draw_detections(GREY, box, labels, None, ["a", "Größe"]))


def test_crowd_regions_are_dashed_and_named_so():
    box = torch.tensor([[20.0, 60.0, 140.0, 110.0]])
    solid = draw_detections(GREY, box, torch.tensor([1]), None, NAMES)
    crowd = draw_detections(GREY, box, torch.tensor([1]), None, NAMES, torch.tensor([True]))
    assert torch.equal(draw_detections(GREY, box, torch.tensor([1]), None, NAMES, torch.tensor([False])), solid)
    color = torch.tensor(class_color(1), dtype=torch.uint8)

    def outline(image, y):  # which pixels of the row through the lower side, away from the caption, are coloured
        return (image[:, y, 25:135] == color[:, None]).all(dim=0)

    assert outline(solid, 110).all()
    assert 0.3 < outline(crowd, 110).float().mean() < 0.8
    assert not torch.equal(crowd[:, :60], solid[:, :60])  # the caption says crowd
