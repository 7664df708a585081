"""engine/diagnosis/anchor_fit.py against torchvision's IoU, and the scale that it recommends."""

import json

import pytest
import torch
from torchvision import ops

from data import CocoDetection
from detector import build_references
from detector.monitor import REACHED_IOU
from detector.retinanet.config import RetinaNetConfig
from engine.diagnosis.anchor_fit import anchor_fit, best_base_scale
from engine.run.groups import DataConfig

DATA = DataConfig(image_size=[128, 96])  # of 64×64 images


@pytest.fixture(scope="module")
def dataset(shapes):
    return CocoDetection(shapes, "train")


def best_ious(dataset, model):
    shapes = [(-(-128 // stride), -(-96 // stride)) for stride in (8, 16, 32, 64, 128)]
    anchors = torch.cat(build_references(model).generator(shapes))
    boxes = torch.cat([dataset.objects(index)["boxes"] for index in range(len(dataset))])
    boxes = boxes * torch.tensor([1.5, 2, 1.5, 2])
    return boxes, ops.box_iou(boxes, anchors).amax(dim=1)


@pytest.mark.parametrize("scale", [1.0, 4.0, 16.0])
def test_shares_of_objects_without_a_fitting_anchor(dataset, scale):
    model = RetinaNetConfig(anchor_base_scale=scale)
    fit, (boxes, best) = anchor_fit(dataset, model, DATA), best_ious(dataset, model)
    assert fit.objects == len(boxes)
    missed = best < REACHED_IOU
    small = ops.box_area(boxes) < 32**2
    assert fit.missed["all"] == pytest.approx(missed.float().mean().item())
    assert fit.missed["small"] == pytest.approx(missed[small].float().mean().item())
    assert "large" not in fit.missed  # too few to be judged


def test_the_recommended_scale_fits_best(dataset):
    best = best_base_scale(dataset, RetinaNetConfig(anchor_base_scale=16.0), DATA)

    def reached(scale):
        return (best_ious(dataset, RetinaNetConfig(anchor_base_scale=scale))[1] >= 0.5).float().mean()

    assert reached(best) >= max(reached(best / 2), reached(best * 2), reached(16.0))


def test_a_split_without_objects(shapes, tmp_path):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "train").symlink_to(shapes / "train")
    content = json.loads((shapes / "annotations" / "instances_train.json").read_text())
    content["annotations"] = []
    (tmp_path / "annotations" / "instances_train.json").write_text(json.dumps(content))
    fit = anchor_fit(CocoDetection(tmp_path, "train"), RetinaNetConfig(), DATA)
    assert (fit.objects, fit.missed) == (0, {})


@pytest.mark.parametrize("num_images", [2, 4])
def test_the_sample_is_of_images_with_objects(shapes, tmp_path, num_images):
    """Of twelve images those with numbers 1, 4 and 7 from 0 on have objects, and every third from 0 on has none."""
    (tmp_path / "annotations").mkdir()
    (tmp_path / "train").symlink_to(shapes / "train")
    content = json.loads((shapes / "annotations" / "instances_train.json").read_text())
    ids = [content["images"][index]["id"] for index in (1, 4, 7)]
    content["annotations"] = [each for each in content["annotations"] if each["image_id"] in ids]
    (tmp_path / "annotations" / "instances_train.json").write_text(json.dumps(content))
    fit = anchor_fit(CocoDetection(tmp_path, "train"), RetinaNetConfig(), DATA, num_images)
    sampled = ids if num_images == 4 else [ids[0], ids[2]]
    assert fit.objects == sum(each["image_id"] in sampled for each in content["annotations"])


def test_images_that_keep_their_aspect_ratio(dataset):
    by_side = anchor_fit(dataset, RetinaNetConfig(), DataConfig(short_side=[120, 136], long_side=200))
    assert by_side == anchor_fit(dataset, RetinaNetConfig(), DataConfig(image_size=128))
