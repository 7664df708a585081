"""Boxes in another form than COCO's: fractions of the image and corners are refused, and nothing else is."""

import json
from pathlib import Path

import pytest
from coco_sections import annotation, train_json

from data.annotations import read_annotations
from data.box_form import refuse_other_forms_of
from data.errors import DatasetError


def test_a_box_of_one_whole_pixel_is_no_fraction(write_coco) -> None:
    found = read_annotations(train_json(write_coco([(0, 1, [0, 0, 1, 1])])))
    assert found.boxes.tolist() == [[0, 0, 1, 1]]


def test_boxes_of_a_pixel_are_no_fractions(write_coco) -> None:
    for bbox in ([0, 0, 1.02, 0.5], [-0.02, 0, 1, 0.5], [0, 0, 1, 1]):
        assert len(read_annotations(train_json(write_coco(sections={"annotations": annotation(bbox=bbox)}))).boxes) == 1


CORNERS = [[2, 3, 20, 12], [30, 20, 60, 40], [40, 30, 64, 48], [10, 8, 30, 25], [0, 0, 64, 48]]  # in an image of 64×48


def test_corners_are_refused_with_what_they_are_told_by(write_coco) -> None:
    path = train_json(write_coco([(0, 1, box) for box in CORNERS], sizes=[(48, 64)]))
    with pytest.raises(DatasetError) as caught:
        read_annotations(path, on_error="skip")
    # 30 + 60 > 64 and 40 + 64 > 64 alone
    assert str(caught.value) == (
        f"{path}: the boxes look like corners x1, y1, x2, y2: as x, y, width, height 2 of 5 reach out of their images, "
        "as corners none; COCO has x, y, width, height: convert them (width = x2 - x1, height = y2 - y1)"
    )


@pytest.mark.parametrize(
    "boxes",
    [
        CORNERS[:4],  # too few to tell
        [*CORNERS, [20, 30, 10, 40]],  # one whose third number is smaller than the first
        [*CORNERS, [-5, 3, 20, 12]],  # one that is over the border in either form
        [CORNERS[1], *[CORNERS[0]] * 4],  # one in five reaches out
        [[0, 0, 64, 48]] * 5,  # whole images
        [[5, 5, 60, 44]] * 5,  # over the border by a pixel, as rounding leaves them
    ],
)
def test_boxes_that_may_be_in_cocos_form_are_taken(write_coco, boxes) -> None:
    read_annotations(train_json(write_coco([(0, 1, box) for box in boxes], sizes=[(48, 64)])))


@pytest.mark.parametrize("folder", ["bccd", "coco_tiny", "deeppcb", "hdbpmn", "muscima"])
def test_no_shared_set_is_taken_for_corners_and_each_is_once_it_has_them(shared: Path, folder, tmp_path) -> None:
    for path in (shared / "data" / folder / "annotations").glob("instances_*.json"):
        document = json.loads(path.read_text())
        refuse_other_forms_of(document, path)
        for record in document["annotations"]:
            x, y, width, height = record["bbox"]
            record["bbox"] = [x, y, x + width, y + height]
        # a file may have boxes without area, which make no corners in order
        document["annotations"] = [each for each in document["annotations"] if each["area"] > 0]
        with pytest.raises(DatasetError, match="look like corners"):
            refuse_other_forms_of(document, path)
