"""A fixed sample of a data set."""

import json

import pytest
import torch

from data import CocoDetection
from data.synthetic.shapes import generate_shapes


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("shapes")
    generate_shapes(root, {"train": 7, "val": 1}, image_size=64, seed=3)
    return CocoDetection(root, "train")


def test_is_evenly_spaced_and_shows_the_same_images(dataset):
    sample = dataset.sample(3, None)
    assert len(sample) == 3 and len(dataset) == 7
    for own, index in enumerate((0, 2, 4)):
        (image, target), (whole, expected) = sample[own], dataset[index]
        assert torch.equal(image, whole)
        assert target["image_id"] == expected["image_id"] == sample.image_ids[own]
        assert torch.equal(target["boxes"], expected["boxes"]) and torch.equal(target["labels"], expected["labels"])
        assert sample.path(own) == dataset.path(index)
    assert sample.digest == dataset.sample(3, None).digest != dataset.digest


def test_more_than_there_are_is_all_of_them(dataset):
    assert dataset.sample(100, None).image_ids.tolist() == dataset.image_ids.tolist()


def test_its_annotations_are_those_of_the_file(dataset):
    document = json.loads(dataset.annotation_file.read_text())
    sample = dataset.sample(3, None)
    truth = sample.ground_truth
    assert [image["id"] for image in truth["images"]] == sample.image_ids.tolist()
    expected = [entry for entry in document["annotations"] if entry["image_id"] in sample.image_ids]
    key = ("image_id", "category_id", "iscrowd")
    assert [[entry[name] for name in key] for entry in truth["annotations"]] == [
        [entry.get(name, 0) for name in key] for entry in expected
    ]
    for entry, original in zip(truth["annotations"], expected, strict=True):
        assert entry["bbox"] == pytest.approx(original["bbox"], abs=1e-4)
    assert truth["categories"] == [{"id": c["id"], "name": c["name"]} for c in document["categories"]]
