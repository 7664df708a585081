"""The examples of docs/using-the-loss.md run and do what they say."""

import re
import sys
from pathlib import Path

import pytest
import torch

import losses

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "using-the-loss.md"


@pytest.fixture
def examples(monkeypatch) -> list[str]:
    monkeypatch.setitem(sys.modules, "alrp", losses)  # as which this folder is installed
    return re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)


def batch(seed: int) -> tuple[list[torch.Tensor], list[dict[str, torch.Tensor]]]:
    """Two dark images, one with a bright square in it and one without an object."""
    generator = torch.Generator().manual_seed(seed)
    images = [0.2 * torch.rand(3, 128, 128, generator=generator) for _ in range(2)]
    x, y = torch.randint(0, 64, (2,), generator=generator).tolist()
    images[0][:, y : y + 64, x : x + 64] += 0.8
    boxes = torch.tensor([[x, y, x + 64, y + 64]], dtype=torch.float)
    return images, [
        {"boxes": boxes, "labels": torch.tensor([1])},
        {"boxes": boxes[:0], "labels": torch.zeros(0, dtype=torch.int64)},
    ]


def test_torchvisions_retinanet_trains_with_the_documented_subclass(examples):
    pytest.importorskip("torchvision")
    names: dict = {}
    for example in examples[1:3]:
        exec(example, names)
    torch.manual_seed(0)
    model, balance = names["build"](num_classes=3).train(), names["balance"]
    gradients = []
    forward = model.head.forward

    def watched(features):
        outputs = forward(features)
        outputs["cls_logits"].register_hook(gradients.append)
        return outputs

    model.head.forward = watched
    optimizer = torch.optim.SGD(model.parameters(), lr=0.002, momentum=0.9)
    parts, record = [], balance.record
    balance.record = lambda cls, loc: (parts.append((cls.item(), loc.item())), record(cls, loc))
    names["train_epoch"](model, [batch(seed) for seed in range(2)], optimizer, balance)

    cls, loc = (sum(values) for values in zip(*parts, strict=True))
    assert len(parts) == 2 and cls > 0 and loc > 0
    assert balance.weight.item() == pytest.approx((cls + loc) / loc, rel=1e-5)
    for gradient in gradients:  # positives go up as much as negatives go down
        up, down = gradient.clamp(max=0).sum().item(), gradient.clamp(min=0).sum().item()
        assert up < 0 and down == pytest.approx(-up, rel=1e-3)


def test_the_subclass_agrees_with_this_projects_criterion(examples):
    pytest.importorskip("torchvision")
    from torchvision.models.detection.anchor_utils import AnchorGenerator as TorchvisionAnchors
    from torchvision.models.detection.image_list import ImageList

    from detector.matcher import MaxIoUMatcher
    from detector.objectives import MatchedObjective
    from losses.alrp import ALRPLoss

    names: dict = {}
    exec(examples[1], names)
    head = names["ALRPHead"](16, 3, 3)
    image, targets = batch(3)
    anchors = TorchvisionAnchors(((32,), (64,)), ((0.5, 1.0, 2.0),) * 2)(
        ImageList(torch.stack(image), [(128, 128)] * 2), [torch.zeros(2, 1, 16, 16), torch.zeros(2, 1, 8, 8)]
    )
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, len(anchors[0]), 3, generator=generator)
    deltas = 0.3 * torch.randn(2, len(anchors[0]), 4, generator=generator)
    matches = [MaxIoUMatcher()([anchors[0]], target["boxes"]) for target in targets]
    theirs = head.compute_loss(targets, {"cls_logits": logits, "bbox_regression": deltas}, anchors, matches)
    for target in targets:
        target["crowd"] = torch.zeros(len(target["boxes"]), dtype=torch.bool)
    stds = torch.tensor([0.1, 0.1, 0.2, 0.2])  # torchvision's coder divides by 1
    ours = MatchedObjective(MaxIoUMatcher(), ALRPLoss())(logits, deltas / stds, [anchors[0]], targets)
    assert theirs["classification"].item() == pytest.approx(ours["loss_cls"].item(), rel=1e-5)
    assert theirs["bbox_regression"].item() == pytest.approx(ours["loss_loc"].item(), rel=1e-5)


def test_the_plain_example_learns_to_rank_and_to_estimate(examples, capsys):
    names: dict = {}
    exec(examples[3], names)
    (first_ranking, first_values), (last_ranking, last_values) = names["history"][0], names["history"][-1]
    assert last_ranking < first_ranking / 10 and last_values < first_values / 4
    with torch.no_grad():
        scores = names["model"](names["features"])[:, 0]
    best = scores.argsort(descending=True)[:100]
    assert names["targets"][best].mean() > 0.85  # 0.01 by chance
    assert capsys.readouterr().out.count("ranking error") == 2
