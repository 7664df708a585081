"""What evaluation makes of a detector's outputs, and how often it waits for them."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from data import CocoDetection, eval_transform
from engine.evaluation.evaluator import evaluate
from engine.run.config import load_config, parse_config
from engine.run.datasets import evaluation_set
from engine.run.distributed import Processes
from engine.run.load import load_detector
from engine.tools.prediction import predict

HERE = Processes(0, 1, torch.device("cpu"))


class FakeDetector(nn.Module):
    """As many detections as the first pixel says, none included, at places that depend on the image's size."""

    def forward(self, images: Tensor, image_sizes: list[tuple[int, int]]) -> list[dict[str, Tensor]]:
        detections = []
        for image, (height, width) in zip(images, image_sizes, strict=True):
            count = round(255 * float(image[0, 0, 0])) % 4
            corners = torch.arange(1.0, count + 1)[:, None] / 7 * torch.tensor([width / 9, height / 9])
            boxes = torch.cat([corners, corners + torch.tensor([width / 3, height / 3])], dim=1)
            scores = torch.linspace(0.9, 0.3, count)
            detections.append({"boxes": boxes, "scores": scores, "labels": torch.arange(count) % 3})
        return detections


class FirstClass(nn.Module):
    """One object of the first class in every image."""

    def forward(self, images: Tensor, image_sizes: list[tuple[int, int]]) -> list[dict[str, Tensor]]:
        found = {"boxes": torch.tensor([[4.0, 4, 20, 20]]), "scores": torch.ones(1), "labels": torch.tensor([0])}
        return [found] * len(images)


@pytest.fixture
def config(config_file):
    return load_config(config_file)


@pytest.fixture
def dataset(shapes) -> CocoDetection:
    return CocoDetection(shapes, "val", transform=eval_transform(48, 56))


def test_detections_are_in_the_pixels_of_the_file_by_image_and_best_first(config, dataset):
    result = evaluate(FakeDetector(), dataset, config, HERE)
    expected = []
    for index in range(len(dataset)):
        image, target = dataset[index]
        padded = torch.full((3, 64, 64), 0.5)
        padded[:, : image.shape[1], : image.shape[2]] = image / 255
        (found,) = FakeDetector()(padded[None], [target["size"]])
        (height, width), (orig_height, orig_width) = target["size"], target["orig_size"]
        for (x1, y1, x2, y2), score, label in zip(
            found["boxes"].tolist(), found["scores"].tolist(), found["labels"].tolist(), strict=True
        ):
            x, y = orig_width / width, orig_height / height
            bbox = pytest.approx([x1 * x, y1 * y, (x2 - x1) * x, (y2 - y1) * y], rel=1e-5)
            category = dataset.category_ids[label]
            expected.append({"image_id": target["image_id"], "category_id": category, "bbox": bbox, "score": score})
    assert 0 < len(expected) < 3 * len(dataset)
    assert result.detections == expected


def test_the_detections_of_a_batch_are_fetched_from_the_device_at_once(config, dataset, monkeypatch):
    fetches = []
    fetch = Tensor.cpu
    monkeypatch.setattr(Tensor, "cpu", lambda tensor: fetches.append(tuple(tensor.shape)) or fetch(tensor))
    detections = evaluate(FakeDetector(), dataset, config, HERE).detections
    assert len(fetches) == 2  # 6 images in batches of 4
    assert sum(rows for rows, _ in fetches) == len(detections)


def test_examples_are_the_first_images(config, dataset):
    assert len(evaluate(FakeDetector(), dataset, config, HERE, num_examples=5).examples) == 5
    assert evaluate(FakeDetector(), dataset, config, HERE).examples == []


def test_an_error_while_results_are_converted_is_not_lost(config, dataset):
    class Unknown(FakeDetector):
        def forward(self, images: Tensor, image_sizes: list[tuple[int, int]]) -> list[dict[str, Tensor]]:
            return [{"boxes": torch.zeros(1, 4), "scores": torch.ones(1), "labels": torch.tensor([99])}] * len(images)

    with pytest.raises(IndexError):
        evaluate(Unknown(), dataset, config, HERE)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_network_evaluates_and_predicts_in_the_precision_that_is_named(
    precision, tmp_path, write_checkpoint, dataset, monkeypatch
):
    detector, info = load_detector(write_checkpoint(tmp_path, dataset.class_names))
    config = parse_config(info.config.to_dict() | {"evaluation": {"precision": precision}}, "test")
    types = []
    detector.head.cls_logits.register_forward_hook(lambda _, __, logits: types.append(logits.dtype))
    found = evaluate(detector, dataset, config, HERE).detections
    predicted = predict(detector, replace(info, config=config), dataset.path(0))
    assert set(types) == {getattr(torch, precision)}
    assert found and predicted["boxes"].dtype == predicted["scores"].dtype == torch.float32


def test_metrics_are_of_the_chosen_classes_alone(config_file, dataset):
    name = dataset.class_names[1]
    config = load_config(config_file, [f"data.classes=[{name}]"])
    chosen = evaluation_set(config, "val")
    result = evaluate(FirstClass(), chosen, config, HERE)
    assert list(result.metrics["per_class"]) == [name]
    assert {found["category_id"] for found in result.detections} == {dataset.category_ids[1]}
