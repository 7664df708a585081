"""Test-time augmentation: every view finds the object at the same place of the file, and NMS merges what they find."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from data.boxes import mirror_boxes
from engine.evaluation import evaluator
from engine.evaluation.evaluator import evaluate
from engine.evaluation.tta import merge, mirror_images, views
from engine.run.config import parse_config
from engine.run.datasets import evaluation_set
from engine.run.distributed import Processes

BOXES = {7: (12, 20, 40, 60), 9: (70, 10, 110, 30)}  # image id to x1, y1, x2, y2 of its bright object


class BrightObject(nn.Module):
    """Finds the box around the bright pixels of each image, with more certainty the fewer pixels it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = []

    def forward(self, images, image_sizes):
        detections = []
        for image, (height, width) in zip(images, image_sizes, strict=True):
            self.seen.append((height, width))
            y, x = (image[0] > 0.7).nonzero().unbind(1)
            box = torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1]).float()[None]
            scores = torch.tensor([1 / (1 + height / 100)])
            detections.append({"boxes": box, "scores": scores, "labels": torch.tensor([0])})
        return detections


@pytest.fixture
def root(tmp_path):
    """Two images of 80×120 and 60×120 pixels, of one bright object each."""
    images, annotations = [], []
    (tmp_path / "val").mkdir()
    (tmp_path / "annotations").mkdir()
    for (image_id, (x1, y1, x2, y2)), height in zip(BOXES.items(), (80, 60), strict=True):
        pixels = np.full((height, 120, 3), 40, dtype=np.uint8)
        pixels[y1:y2, x1:x2] = 255
        Image.fromarray(pixels).save(tmp_path / f"val/{image_id}.png")
        images.append({"id": image_id, "file_name": f"{image_id}.png", "height": height, "width": 120})
        bbox = [x1, y1, x2 - x1, y2 - y1]
        annotations.append({"id": image_id, "image_id": image_id, "category_id": 1, "bbox": bbox, "iscrowd": 0})
    document = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "object"}]}
    (tmp_path / "annotations/instances_val.json").write_text(json.dumps(document))
    return tmp_path


def configured(root, **evaluation):
    sizes = {"short_side": 80, "long_side": 200}
    data = {"root": str(root), "val_split": "val", "workers": 0}
    return parse_config({"data": data, "evaluation": sizes | evaluation}, "test")


@pytest.mark.parametrize(
    ("evaluation", "num_views"),
    [
        ({}, 1),
        ({"flip": True}, 2),
        ({"extra_short_sides": [40, 160]}, 3),
        ({"flip": True, "extra_short_sides": [40, 160]}, 6),
        ({"flip": True, "extra_short_sides": [160], "resize": "torchvision"}, 4),
    ],
)
def test_all_views_agree_on_the_place_and_merge_to_the_most_certain(root, evaluation, num_views):
    config, detector = configured(root, **evaluation), BrightObject()
    dataset = evaluation_set(config, "val")
    assert len(views(dataset, config.evaluation)) == num_views
    result = evaluate(detector, dataset, config, Processes(0, 1, torch.device("cpu")), num_examples=9)
    assert len(detector.seen) == 2 * num_views and len(result.examples) == 2
    assert [found["image_id"] for found in result.detections] == [7, 9]
    smallest = 40 if 40 in evaluation.get("extra_short_sides", ()) else 80
    for found in result.detections:
        x, y, width, height = found["bbox"]
        assert [x, y, x + width, y + height] == pytest.approx(BOXES[found["image_id"]], abs=1.6)
        assert found["score"] == pytest.approx(1 / (1 + smallest / 100), abs=1e-3)
    assert result.metrics["AP50"] == pytest.approx(1)


def test_the_mirror_leaves_padding_where_it_is():
    images = torch.arange(2 * 3 * 2 * 4.0).view(2, 3, 2, 4)
    mirrored = mirror_images(images, [(2, 4), (1, 3)])
    assert torch.equal(mirrored[0], images[0].flip(-1))
    assert torch.equal(mirrored[1, :, :1, :3], images[1, :, :1, :3].flip(-1))
    assert torch.equal(mirrored[1, :, 1:], images[1, :, 1:]) and torch.equal(mirrored[1, :, :, 3], images[1, :, :, 3])
    assert mirror_boxes(torch.tensor([[1.0, 2, 4, 5]]), 10).tolist() == [[6, 2, 9, 5]]


def test_merging_is_by_image_and_class():
    def result(image_id, category_id, x, score):
        return {"image_id": image_id, "category_id": category_id, "bbox": [x, 0.0, 10.0, 10.0], "score": score}

    first = [result(1, 3, 0.0, 0.5), result(1, 3, 1.0, 0.9), result(1, 4, 0.0, 0.7), result(1, 3, 50.0, 0.2)]
    second = [result(2, 3, 0.0, 0.6)]
    assert merge([*first, *second], 0.5, 100) == [first[1], first[2], first[3], *second]
    assert merge([*first, *second], 0.5, 2) == [first[1], first[2], *second]
    assert merge([], 0.5, 100) == []


@pytest.mark.parametrize("first_id", [2**40, 2**70, -(2**70)])
def test_category_ids_may_be_of_any_size(first_id):
    def result(category_id, x, score):
        return {"image_id": 1, "category_id": category_id, "bbox": [x, 0.0, 10.0, 10.0], "score": score}

    a, b = first_id, first_id + 1
    found = [result(a, 0.0, 0.9), result(b, 0.0, 0.8), result(b, 1.0, 0.7), result(a, 20.0, 0.6)]
    assert merge(found, 0.5, 100) == [found[0], found[1], found[3]]


def test_the_limit_of_the_long_side_grows_along(root):
    config = configured(root, extra_short_sides=[160])
    first, second = views(evaluation_set(config, "val"), config.evaluation)
    assert first.dataset.transform.output_size((80, 200)) == (80, 200)
    assert second.dataset.transform.output_size((80, 200)) == (160, 400)


def test_views_are_merged_as_the_detector_thins_out(root, monkeypatch):
    seen = []
    monkeypatch.setattr(evaluator, "merge", lambda results, *limits: seen.append(limits) or merge(results, *limits))
    config = configured(root, flip=True).to_dict()
    config["model"] |= {"nms_thresh": 0.3, "detections_per_img": 7}
    config = parse_config(config, "test")
    evaluate(BrightObject(), evaluation_set(config, "val"), config, Processes(0, 1, torch.device("cpu")))
    assert seen == [(0.3, 7)]
