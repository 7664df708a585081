"""Converted weights: torchvision's detectors find the same here as there, on real images through the evaluation."""

import json
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import (
    FCOS,
    RetinaNet,
    fcos_resnet50_fpn,
    retinanet_resnet50_fpn,
    retinanet_resnet50_fpn_v2,
)
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from data import read_image
from detector.released import COCO_CLASSES, COCO_IDS
from engine.evaluation.evaluator import evaluate
from engine.run.checkpoint import CheckpointError
from engine.run.config import parse_config
from engine.run.datasets import evaluation_set
from engine.run.distributed import Processes
from engine.run.load import detector_from_state
from engine.tools.released import convert, read_released

WITHOUT_WEIGHTS = {"weights": None, "weights_backbone": None}


def frozen_backbone() -> nn.Module:
    return resnet_fpn_backbone(
        backbone_name="resnet50",
        weights=None,
        norm_layer=FrozenBatchNorm2d,
        returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(256, 256),
    )


def frozen_v1(**sizes: int) -> RetinaNet:
    """As the one that COCO_V1's weights are loaded into: frozen BatchNorm, ε 0."""
    model = RetinaNet(frozen_backbone(), 91, **sizes)
    for module in model.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.eps = 0.0
    return model


MODELS = {
    "v1": lambda **sizes: retinanet_resnet50_fpn(**WITHOUT_WEIGHTS, **sizes),
    "v1_frozen": frozen_v1,
    "fcos": lambda **sizes: fcos_resnet50_fpn(**WITHOUT_WEIGHTS, **sizes),
    "fcos_frozen": lambda **sizes: FCOS(frozen_backbone(), 91, **sizes),  # its COCO_V1's ε is the usual one
    "v2": lambda **sizes: retinanet_resnet50_fpn_v2(**WITHOUT_WEIGHTS, **sizes),
}


def randomise(model: RetinaNet | FCOS, tiny_variances: bool) -> None:
    """BatchNorm statistics and head weights that make detections of many classes at many places."""
    generator = torch.Generator().manual_seed(3)
    for module in model.backbone.body.modules():
        if isinstance(module, nn.BatchNorm2d | FrozenBatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            if tiny_variances:  # where ε tells: some of ImageNet's are nearly 0; their weights are too
                module.running_var[::16] *= 1e-6
                module.weight.data[::16] *= 1e-3
        if getattr(module, "bn3", None) is not None:
            module.bn3.weight.data *= 0.3  # keeps the residual sums in range
    with torch.no_grad():
        for head in (model.head.classification_head, model.head.regression_head):
            for module in head.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
        logits = model.head.classification_head.cls_logits
        logits.bias.fill_(-4.0)
        unused = [column for column in range(91) if column not in COCO_IDS]
        logits.bias.view(-1, 91)[:, unused] = -1e4  # silent, as in a trained model
        model.head.regression_head.bbox_reg.weight *= 0.1


@pytest.fixture(scope="module")
def real_images(shared, tmp_path_factory) -> Path:
    """Data set of two of COCO's images, one of them upright."""
    root, source = tmp_path_factory.mktemp("real"), shared / "data/coco_tiny"
    content = json.loads((source / "annotations/instances_val2017.json").read_text())
    sizes = {}
    for image in content["images"]:
        sizes.setdefault(image["height"] > image["width"], image)
    content["images"] = list(sizes.values())
    os.symlink(source / "val2017", root / "val2017")
    (root / "annotations").mkdir()
    (root / "annotations/image_info_val2017.json").write_text(json.dumps(content | {"annotations": []}))
    return root


def assert_same_detections(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    """As sets where scores are within 1e-4 of each other, in order where they are further apart."""
    assert len(theirs["scores"]) >= 100
    assert len(ours["scores"]) == len(theirs["scores"])
    torch.testing.assert_close(ours["scores"], theirs["scores"], rtol=0, atol=1e-5)
    runs = torch.cumsum(torch.cat([torch.zeros(1), (theirs["scores"][:-1] - theirs["scores"][1:] > 1e-4).float()]), 0)
    for run in runs.unique():
        rows = runs == run
        pairs = []
        for found in (ours, theirs):
            label, box = found["labels"][rows], found["boxes"][rows]
            order = sorted(range(len(label)), key=lambda i: (label[i].item(), *box[i].round().tolist()))
            pairs.append((label[order], box[order]))
        assert torch.equal(pairs[0][0], pairs[1][0])
        torch.testing.assert_close(pairs[0][1], pairs[1][1], rtol=0, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "sides"), [*((name, (256, 400)) for name in MODELS), ("v1_frozen", (800, 1333))])
def test_detections_are_torchvisions(name, sides, real_images, tmp_path):
    torch.manual_seed(0)
    model = MODELS[name](min_size=sides[0], max_size=sides[1]).eval()
    randomise(model, tiny_variances=name in ("v1_frozen", "fcos_frozen"))
    torch.save(model.state_dict(), tmp_path / "theirs.pth")
    state = convert("torchvision", read_released(tmp_path / "theirs.pth"), "theirs.pth")
    assert state["classes"] == COCO_CLASSES and len(COCO_CLASSES) == 80
    assert (state["config"]["evaluation"]["short_side"], state["config"]["evaluation"]["long_side"]) == (800, 1333)

    overrides = [f"evaluation.short_side={sides[0]}", f"evaluation.long_side={sides[1]}", "data.workers=0"]
    config = parse_config(state["config"], "state", [*overrides, f"data.root={real_images}", "evaluation.batch_size=1"])
    detector, _ = detector_from_state(state, "state", config, torch.device("cpu"))
    dataset = evaluation_set(config, "val")
    results = evaluate(detector, dataset, config, Processes(0, 1, torch.device("cpu"))).detections
    for index, image_id in enumerate(dataset.image_ids.tolist()):
        found = [result for result in results if result["image_id"] == image_id]
        boxes = torch.tensor([result["bbox"] for result in found])
        boxes[:, 2:] += boxes[:, :2]
        ours = {
            "boxes": boxes,
            "scores": torch.tensor([result["score"] for result in found]),
            "labels": torch.tensor([result["category_id"] for result in found]),
        }
        image = read_image(dataset.folder / dataset._annotations.file_name(index))
        with torch.inference_mode():
            (theirs,) = model([image / 255])
        assert_same_detections(ours, theirs)


def test_fcos_in_float64_finds_exactly_what_torchvisions_does():
    torch.manual_seed(0)
    size = (128, 160)  # of which the sides of the upper levels are no divisors
    model = MODELS["fcos"](min_size=min(size), max_size=max(size)).eval()
    randomise(model, tiny_variances=False)
    state = convert("torchvision", model.state_dict(), "theirs.pth")
    detector, _ = detector_from_state(state, "state", parse_config(state["config"], "state"), torch.device("cpu"))
    image = torch.rand(3, *size, dtype=torch.float64)
    with torch.inference_mode():
        (theirs,), (ours,) = model.double()([image]), detector.double()(image[None])
    assert len(theirs["scores"]) == 100 and theirs["scores"].min() > 0.2
    assert torch.equal(torch.tensor(COCO_IDS)[ours["labels"]], theirs["labels"])
    torch.testing.assert_close(ours["scores"], theirs["scores"], rtol=0, atol=1e-12)
    torch.testing.assert_close(ours["boxes"], theirs["boxes"], rtol=0, atol=1e-9)


def as_released(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """With the names that the released file of v1 has, from before torchvision 0.13."""
    renamed = {}
    for name, value in state.items():
        parts = name.split(".")
        if parts[-4:-2] == ["conv", parts[-3]] and parts[-2] == "0" and "head" in parts:
            parts[-3:-1] = [str(2 * int(parts[-3]))]
        if parts[:2] == ["backbone", "fpn"] and parts[2] in ("inner_blocks", "layer_blocks"):
            del parts[4]
        renamed[".".join(parts)] = value
    return renamed


def test_the_released_files_older_names_mean_the_same():
    state = {name: torch.zeros(value.shape) for name, value in meta_state("v1_frozen").items()}
    for index, value in enumerate(state.values()):
        value.fill_(index + 1)
    old = as_released(state)
    assert "head.classification_head.conv.6.bias" in old and "backbone.fpn.inner_blocks.2.weight" in old
    ours, ours_of_old = convert("torchvision", state, "new")["model"], convert("torchvision", old, "old")["model"]
    assert all(torch.equal(value, ours_of_old[name]) for name, value in ours.items())


def meta_state(name: str) -> dict[str, Tensor]:
    with torch.device("meta"):
        return MODELS[name]().state_dict()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda state: state.pop("head.regression_head.conv.1.0.bias"), "head.box_tower.2.bias is missing"),
        (lambda state: state.update({"backbone.body.fc.bias": torch.zeros(1)}), "backbone.fc.bias is left over"),
        (
            lambda state: state.update({"head.classification_head.cls_logits.weight": torch.zeros(18, 256, 3, 3)}),
            "2 class columns",
        ),
        (lambda state: state.update({"head.regression_head.bbox_reg.weight": torch.zeros(2, 1, 1, 1)}), "columns"),
        (lambda state: state.update({"head.classification_head.cls_logits.bias": torch.zeros(5)}), "cls_logits.bias"),
        (lambda state: state.pop("backbone.body.bn1.weight"), "backbone.bn1.weight is missing"),
        (lambda state: state.clear(), "no tensor head.regression_head.bbox_reg.weight"),
    ],
)
def test_what_does_not_fit_is_named(change, expected):
    state = {name: torch.zeros(()).expand(value.shape) for name, value in meta_state("v1").items()}
    change(state)
    with pytest.raises(CheckpointError) as error:
        convert("torchvision", state, "theirs.pth")
    assert expected in str(error.value) and "\n" not in str(error.value)


def test_the_family_is_told_by_the_branch_of_centreness():
    state = {name: torch.zeros(()).expand(value.shape) for name, value in meta_state("fcos").items()}
    converted = convert("torchvision", state, "theirs.pth")
    assert converted["config"]["model"]["family"] == "fcos" and (converted["model"]["head.level_scales"] == 1).all()
    state["head.classification_head.cls_logits.weight"] = torch.zeros(18, 256, 3, 3)
    with pytest.raises(CheckpointError, match=r"^theirs\.pth: 18 class columns"):
        convert("torchvision", state, "theirs.pth")


def test_class_names_are_cocos(shared):
    categories = json.loads((shared / "data/coco_tiny/annotations/instances_val2017.json").read_text())["categories"]
    assert [(entry["id"], entry["name"]) for entry in categories] == list(zip(COCO_IDS, COCO_CLASSES, strict=True))
