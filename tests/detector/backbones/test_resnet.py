"""detector/backbones/resnet.py and norm.py: torchvision's network, and what frozen means."""

import pytest
import torch
import torchvision
from torch import nn

from detector.backbones.norm import FrozenBatchNorm2d, conv_norm, make_norm
from detector.backbones.resnet import ARCHITECTURES, ResNet


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("norm", ["frozen_batch", "batch", "sync_batch"])
def test_names_and_shapes_are_torchvisions(name, norm):
    with torch.device("meta"):
        ours, theirs = ResNet(name, norm).state_dict(), torchvision.models.get_model(name).state_dict()
    theirs = {key: value.shape for key, value in theirs.items() if not key.startswith("fc.")}
    assert {key: value.shape for key, value in ours.items()} == theirs


def torchvision_features(model: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    x = model.layer1(model.maxpool(model.bn1(model.conv1(images)).relu()))
    c3 = model.layer2(x)
    c4 = model.layer3(c3)
    return [c3, c4, model.layer4(c4)]


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_features_are_torchvisions(name):
    torch.manual_seed(0)
    theirs = torchvision.models.get_model(name).eval()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    ours = ResNet(name, "frozen_batch")
    ours.load_state_dict({k: v for k, v in theirs.state_dict().items() if not k.startswith("fc.")})
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        features, expected = ours.train()(images), torchvision_features(theirs, images)
    assert tuple(feature.shape[1] for feature in features) == ours.out_channels
    assert [feature.shape[2:] for feature in features] == [(8, 12), (4, 6), (2, 3)]
    for feature, reference in zip(features, expected, strict=True):
        torch.testing.assert_close(feature, reference, rtol=1e-4, atol=1e-5 * reference.abs().max().item())


@pytest.mark.parametrize("frozen_stages", range(6))
def test_frozen_stages_take_no_gradient_and_keep_no_graph(frozen_stages):
    backbone = ResNet("resnet18", "batch", frozen_stages)
    stages = [("conv1.", "bn1."), ("layer1.",), ("layer2.",), ("layer3.",), ("layer4.",)]
    frozen = tuple(prefix for stage in stages[:frozen_stages] for prefix in stage)
    for name, parameter in backbone.named_parameters():
        assert parameter.requires_grad != name.startswith(frozen), name
    features = backbone(torch.randn(2, 3, 64, 64))
    assert [feature.requires_grad for feature in features] == [stage >= frozen_stages for stage in (2, 3, 4)]


def step(backbone: ResNet) -> None:
    optimizer = torch.optim.SGD([p for p in backbone.parameters() if p.requires_grad], lr=0.1)
    sum(feature.square().mean() for feature in backbone(torch.randn(2, 3, 64, 64))).backward()
    optimizer.step()


def test_frozen_batchnorm_trains_its_affine_parameters_but_not_its_statistics():
    backbone = ResNet("resnet18", "frozen_batch", frozen_stages=2).train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    step(backbone)
    after = backbone.state_dict()
    for name, value in before.items():
        frozen = "running" in name or "tracked" in name or name.startswith(("conv1", "bn1", "layer1"))
        assert torch.equal(value, after[name]) == frozen, name


def test_frozen_stages_keep_the_statistics_of_trained_batchnorm():
    backbone = ResNet("resnet18", "batch", frozen_stages=2).eval().train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    step(backbone)
    after = backbone.state_dict()
    changed = {name for name in before if "running" in name and not torch.equal(before[name], after[name])}
    expected = {n for n in before if "running" in n and not n.startswith(("bn1", "layer1"))}
    assert changed == expected


def test_frozen_batchnorm_ignores_the_mode():
    norm, x = FrozenBatchNorm2d(4), torch.randn(2, 4, 3, 3)
    norm.running_mean.normal_()
    assert torch.equal(norm.train()(x), norm.eval()(x))


def test_group_norm_has_32_groups_and_unknown_norms_are_refused():
    assert make_norm("group", 64).num_groups == 32
    with pytest.raises(ValueError, match="instance"):
        make_norm("instance", 64)


@pytest.mark.parametrize("groups", [1, 2])
def test_frozen_batchnorm_folds_into_the_convolution(groups):
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(4, 6, 3, 2, padding=1, groups=groups, bias=False).double(), FrozenBatchNorm2d(6).double()
    for tensor in (norm.running_mean, norm.weight.data, norm.bias.data):
        tensor.normal_()
    norm.running_var.uniform_(0.5, 1.5)
    x = torch.randn(2, 4, 7, 7, dtype=torch.float64, requires_grad=True)
    inputs = (x, conv.weight, norm.weight, norm.bias)
    folded, apart = conv_norm(x, conv, norm), norm(conv(x))
    torch.testing.assert_close(folded, apart)
    for actual, expected in zip(
        torch.autograd.grad(folded.square().sum(), inputs),
        torch.autograd.grad(apart.square().sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(actual, expected)
