"""Every shipped config builds its model, which takes a training step and an evaluation step at reduced size."""

from pathlib import Path

import pytest
import torch

from detector import build_detector
from engine.run.config import load_config

CONFIGS = sorted((Path(__file__).resolve().parents[3] / "configs").glob("*.yaml"))


def marked(path: Path) -> object:
    small = load_config(path).model.backbone == "resnet18"
    return pytest.param(path, id=path.stem, marks=() if small else pytest.mark.slow)


@pytest.mark.parametrize("path", [marked(path) for path in CONFIGS])
def test_one_training_step_and_one_evaluation_step(path):
    config = load_config(path)
    torch.manual_seed(0)
    detector = build_detector(config, 80, load_weights=False)
    images = torch.rand(2, 3, 64, 96)
    labels, no_crowd = torch.tensor([0, 79]), torch.zeros(2, dtype=torch.bool)
    boxes = torch.tensor([[4.0, 4, 60, 60], [30, 10, 90, 50]])
    target = {"boxes": boxes, "labels": labels, "crowd": no_crowd}
    trained = [parameter for parameter in detector.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=1e-3)
    head = detector.get_parameter(detector.class_head[0])
    before = head.detach().clone()

    loss = detector.train()(images, [target, target])["loss"]
    loss.backward()
    optimizer.step()
    assert loss.isfinite() and all(parameter.grad.isfinite().all() for parameter in trained)
    assert not torch.equal(before, head)

    for found in detector.eval()(images):
        assert set(found) == {"boxes", "scores", "labels"} and len(found["scores"]) <= config.model.detections_per_img
