"""Converted Faster R-CNNs: torchvision's finds the same here as there, and the authors' names are ours by a table."""

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN as TorchvisionFasterRCNN
from torchvision.models.detection import fasterrcnn_resnet50_fpn
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.image_list import ImageList
from torchvision.ops.misc import FrozenBatchNorm2d

from detector import build_detector
from detector.faster_rcnn.released import from_torchvision
from detector.released import COCO_CLASSES, COCO_IDS
from engine.run.checkpoint import CheckpointError
from engine.run.config import load_config
from engine.tools.released import CONFIGS, convert

SIZE = (96, 128)


def frozen() -> TorchvisionFasterRCNN:
    """As the one that COCO_V1's weights are loaded into: frozen BatchNorm, ε 0."""
    backbone = resnet_fpn_backbone(backbone_name="resnet50", weights=None, norm_layer=FrozenBatchNorm2d)
    model = TorchvisionFasterRCNN(backbone, 91)
    for module in model.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.eps = 0.0
    return model


def unfrozen() -> TorchvisionFasterRCNN:
    return fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None)


def randomise(model: TorchvisionFasterRCNN) -> None:
    """Statistics and heads that make detections of many classes at many places."""
    generator = torch.Generator().manual_seed(3)
    for module in model.backbone.body.modules():
        if isinstance(module, nn.BatchNorm2d | FrozenBatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
        if getattr(module, "bn3", None) is not None:
            module.bn3.weight.data *= 0.3  # keeps the residual sums in range
    with torch.no_grad():
        model.rpn.head.conv[0][0].weight.normal_(0, 0.02, generator=generator)
        model.rpn.head.cls_logits.weight.normal_(0, 0.1, generator=generator)
        model.rpn.head.bbox_pred.weight.normal_(0, 0.01, generator=generator)
        predictor = model.roi_heads.box_predictor
        predictor.cls_score.weight.normal_(0, 0.5, generator=generator)
        predictor.cls_score.bias[[i for i in range(1, 91) if i not in COCO_IDS]] = -1e4  # silent, as in a trained model
        predictor.bbox_pred.weight.normal_(0, 0.05, generator=generator)


@pytest.mark.parametrize("make", [pytest.param(frozen, id="frozen"), pytest.param(unfrozen, marks=pytest.mark.slow)])
def test_detections_are_torchvisions_in_float64(make):
    torch.manual_seed(0)
    model = make().eval()
    randomise(model)
    model = model.double()
    released = from_torchvision(model.state_dict())
    config = load_config(CONFIGS / f"{released.config}.yaml")
    detector = build_detector(config, released.num_classes, load_weights=False).double().eval()
    detector.load_state_dict(released.weights)
    images = torch.rand(2, 3, *SIZE, generator=torch.Generator().manual_seed(1)).double()
    sizes = [SIZE, (SIZE[0] - 20, SIZE[1] - 31)]  # the second has padding
    with torch.no_grad():
        found = detector(images, image_sizes=sizes)
        features = model.backbone((images - detector.pixel_mean) / detector.pixel_std)
        proposals, _ = model.rpn(ImageList(images, sizes), features)
        expected, _ = model.roi_heads(features, proposals, sizes)
    for own, theirs in zip(found, expected, strict=True):
        assert len(theirs["scores"]) == 100 and len(theirs["labels"].unique()) > 3
        labels = torch.tensor([COCO_IDS.index(label) for label in theirs["labels"].tolist()])
        assert torch.equal(own["labels"], labels)
        torch.testing.assert_close(own["scores"], theirs["scores"], rtol=0, atol=1e-12)
        torch.testing.assert_close(own["boxes"], theirs["boxes"], rtol=0, atol=1e-9)


def test_a_converted_file_says_what_it_is():
    state = convert("torchvision", {name: torch.zeros(value.shape) for name, value in meta_state().items()}, "x")
    assert state["classes"] == COCO_CLASSES and state["config"]["run"]["name"] == "torchvision_r50_faster_rcnn"


def meta_state() -> dict[str, Tensor]:
    with torch.device("meta"):
        return frozen().state_dict()


def test_parameters_are_torchvisions_but_for_its_unused_classes():
    with torch.device("meta"):
        theirs = unfrozen()
        ours = build_detector(load_config(CONFIGS / "torchvision_r50_faster_rcnn.yaml"), 80, load_weights=False)
    number, own = (sum(parameter.numel() for parameter in model.parameters()) for model in (theirs, ours))
    assert number == 41_755_286 + 53_120  # as published, and frozen BatchNorm's
    assert own == number - (10 + 10 * 4 + 4) * (1024 + 1)  # ten classes, and the box of background


def test_the_released_files_older_names_mean_the_same():
    state = {name: torch.full(value.shape, float(i + 1)) for i, (name, value) in enumerate(meta_state().items())}
    old = {}
    for name, value in state.items():
        if name.startswith("backbone.fpn."):
            name = name.replace(".0.weight", ".weight").replace(".0.bias", ".bias")
        old[name.replace("rpn.head.conv.0.0.", "rpn.head.conv.")] = value
    assert "rpn.head.conv.weight" in old and "backbone.fpn.inner_blocks.3.bias" in old
    ours, ours_of_old = convert("torchvision", state, "new")["model"], convert("torchvision", old, "old")["model"]
    assert all(torch.equal(value, ours_of_old[name]) for name, value in ours.items())


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda state: state.pop("rpn.head.bbox_pred.bias"), "head.box_deltas.bias is missing"),
        (lambda state: state.update({"backbone.body.fc.bias": torch.zeros(1)}), "backbone.fc.bias is left over"),
        (
            lambda state: state.update({"roi_heads.box_predictor.cls_score.weight": torch.zeros(21, 1024)}),
            "21 class columns, expected torchvision's 91",
        ),
        (lambda state: state.update({"roi_heads.box_predictor.bbox_pred.bias": torch.zeros(5)}), "box_deltas.bias"),
        (lambda state: state.clear(), "no tensor head.regression_head.bbox_reg.weight"),
    ],
)
def test_what_does_not_fit_is_named(change, expected):
    state = {name: torch.zeros(()).expand(value.shape) for name, value in meta_state().items()}
    change(state)
    with pytest.raises(CheckpointError) as error:
        convert("torchvision", state, "theirs.pth")
    assert expected in str(error.value) and "\n" not in str(error.value)


def authors_state(softmax: bool) -> dict[str, Tensor]:
    """Names and shapes of the authors' checkpoints, as MMDetection v2 gives them to this network."""
    with torch.device("meta"):
        body = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None).backbone.body.state_dict()
    shapes = {f"backbone.{name}": tuple(value.shape) for name, value in body.items()}
    for level, channels in enumerate((256, 512, 1024, 2048)):
        shapes[f"neck.lateral_convs.{level}.conv.weight"] = (256, channels, 1, 1)
        shapes[f"neck.fpn_convs.{level}.conv.weight"] = (256, 256, 3, 3)
        shapes[f"neck.lateral_convs.{level}.conv.bias"] = shapes[f"neck.fpn_convs.{level}.conv.bias"] = (256,)
    layers = {
        "rpn_head.rpn_conv": (256, 256, 3, 3),
        "rpn_head.rpn_cls": (3, 256, 1, 1),
        "rpn_head.rpn_reg": (12, 256, 1, 1),
        "roi_head.bbox_head.shared_fcs.0": (1024, 12544),
        "roi_head.bbox_head.shared_fcs.1": (1024, 1024),
        "roi_head.bbox_head.fc_cls": (80 + softmax, 1024),
        "roi_head.bbox_head.fc_reg": (320, 1024),
    }
    for name, shape in layers.items():
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = shape, shape[:1]
    return {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}


@pytest.mark.parametrize(("softmax", "config"), [(True, "r50_faster_rcnn"), (False, "r50_faster_rcnn_alrp")])
def test_the_authors_rows_are_recognised(softmax, config):
    checkpoint = convert("alrp", {"state_dict": authors_state(softmax), "meta": {"epoch": 100}}, "theirs.pth")
    assert checkpoint["config"] == load_config(CONFIGS / f"{config}.yaml").to_dict()
    assert len(checkpoint["classes"]) == 80


def test_the_authors_layers_keep_their_places():
    state = authors_state(softmax=True)
    names = {name: f"{index}" for index, name in enumerate(state)}
    numbered = {name: torch.full(value.shape, float(names[name])) for name, value in state.items()}
    ours = convert("alrp", numbered, "x")["model"]
    for theirs, own in (
        ("roi_head.bbox_head.shared_fcs.0.weight", "roi_head.fc1.weight"),
        ("roi_head.bbox_head.fc_reg.bias", "roi_head.box_deltas.bias"),
        ("rpn_head.rpn_cls.weight", "head.logits.weight"),
        ("neck.fpn_convs.3.conv.weight", "fpn.output_convs.3.weight"),
    ):
        assert ours[own].unique().tolist() == [float(names[theirs])]


def test_an_authors_file_of_another_network_is_named():
    state = authors_state(softmax=True)
    for name in list(state):
        if name.startswith("backbone.layer3.5."):
            del state[name]
    with pytest.raises(CheckpointError, match=r"x: no released Faster R-CNN has 5 blocks in layer3, 81 class rows"):
        convert("alrp", state, "x")
