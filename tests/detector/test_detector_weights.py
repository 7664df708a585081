"""detector/weights.py: ImageNet weights, fine-tuning, and what goes wrong with either."""

import logging
import urllib.error

import pytest
import torch
import torchvision

from detector import WeightsError
from detector.backbones.resnet import ResNet
from detector.weights import load_detector_weights, load_imagenet_weights


@pytest.fixture
def imagenet_file(tmp_path):
    torch.manual_seed(1)
    path = tmp_path / "resnet18.pth"
    torch.save(torchvision.models.resnet18().state_dict(), path)
    return path


def test_a_file_fills_the_backbone(make_detector, imagenet_file, caplog):
    detector = make_detector(norm="frozen_batch", weights=str(imagenet_file), frozen_stages=2)
    state = torch.load(imagenet_file)
    for name, value in detector.backbone.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert not caplog.records


def test_deformable_backbones_take_the_weights_of_plain_ones(tmp_path):
    path = tmp_path / "resnet50.pth"
    torch.save(torchvision.models.resnet50().state_dict(), path)
    backbone = ResNet("resnet50", deformable=True)
    load_imagenet_weights(backbone, "resnet50", str(path))
    assert torch.equal(backbone.layer3[2].conv2.weight, torch.load(path)["layer3.2.conv2.weight"])
    assert not backbone.layer3[2].conv2.conv_offset.weight.any()


def test_old_files_without_batch_counters_load(imagenet_file):
    state = torch.load(imagenet_file)
    torch.save({k: v for k, v in state.items() if "num_batches" not in k}, imagenet_file)
    backbone = ResNet("resnet18", "batch")
    load_imagenet_weights(backbone, "resnet18", str(imagenet_file))
    assert torch.equal(backbone.layer4[1].conv2.weight, state["layer4.1.conv2.weight"])


def test_group_norm_gets_the_convolutions_and_one_line_says_so(imagenet_file, caplog):
    backbone = ResNet("resnet18", "group")
    with caplog.at_level(logging.INFO):
        load_imagenet_weights(backbone, "resnet18", str(imagenet_file))
    state = torch.load(imagenet_file)
    assert torch.equal(backbone.layer2[0].downsample[0].weight, state["layer2.0.downsample.0.weight"])
    assert torch.all(backbone.layer2[0].downsample[1].weight == 1)
    assert len(caplog.records) == 1 and "model.norm=group" in caplog.text


def assert_one_line(error: pytest.ExceptionInfo, *words: str) -> None:
    message = str(error.value)
    assert "\n" not in message and all(word in message for word in words), message


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(WeightsError) as error:
        load_imagenet_weights(ResNet("resnet18"), "resnet18", "IMAGENET22K")
    assert_one_line(error, "model.weights 'IMAGENET22K'", "DEFAULT", "IMAGENET1K_V1")


def test_a_backbone_without_released_weights_is_said():
    with pytest.raises(WeightsError) as error:
        load_imagenet_weights(torch.nn.Linear(1, 1), "tiny3", "DEFAULT")
    assert_one_line(error, "'DEFAULT'", "nobody has released weights of tiny3", "model.weights=null")


def test_offline_names_the_place_to_put_the_file(monkeypatch, tmp_path):
    def unreachable(*args, **kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(WeightsError) as error:
        load_imagenet_weights(ResNet("resnet18"), "resnet18", "DEFAULT")
    assert_one_line(error, "no route to host", "resnet18-", str(tmp_path / "checkpoints"), "model.weights=null")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 truncated", b"\xff\xd8\xff\xe0"])
def test_unreadable_files(tmp_path, content):
    path = tmp_path / "broken.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError) as error:
        load_imagenet_weights(ResNet("resnet18"), "resnet18", str(path))
    assert_one_line(error, str(path))


def test_files_that_hold_no_tensors_of_ours(tmp_path, imagenet_file):
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"state_dict": torch.load(imagenet_file)}, tmp_path / "wrapped.pth")
    for path in (tmp_path / "list.pth", tmp_path / "wrapped.pth"):
        with pytest.raises(WeightsError) as error:
            load_imagenet_weights(ResNet("resnet18"), "resnet18", str(path))
        assert_one_line(error, str(path))


def test_weights_of_another_network(imagenet_file):
    with pytest.raises(WeightsError) as error:
        load_imagenet_weights(ResNet("resnet50"), "resnet50", str(imagenet_file))
    assert_one_line(error, str(imagenet_file), "does not fit resnet50", "model.backbone")


def test_fine_tuning_with_other_classes_keeps_everything_but_the_class_head(make_detector, caplog, tmp_path):
    source = make_detector(num_classes=5)
    source.objective.loss.balance.weight.fill_(3.0)
    torch.nn.init.normal_(source.head.box_deltas.bias)
    path = tmp_path / "best.pt"
    torch.save({"model": source.state_dict(), "epoch": 1}, path)
    with caplog.at_level(logging.INFO):
        tuned = make_detector(num_classes=3, init_from=str(path))
    assert "head.cls_logits.weight" in caplog.text
    assert tuned.objective.loss.balance.weight == 50
    for name, value in tuned.named_parameters():
        if name.startswith("head.cls_logits"):
            assert value.shape[0] == 6 * 3
        else:
            assert torch.equal(value, source.state_dict()[name]), name


def test_fine_tuning_with_as_many_classes_loads_the_class_head(make_detector):
    source, tuned = make_detector(num_classes=3, loss={"name": "focal"}), make_detector(num_classes=3)
    torch.nn.init.normal_(source.head.cls_logits.bias)
    assert load_detector_weights(tuned, {"model": source.state_dict()}) == []
    assert torch.equal(tuned.head.cls_logits.bias, source.head.cls_logits.bias)


@pytest.mark.parametrize("names", [["cat", "dog", "bird"], ["x", "y", "z"]])
def test_a_class_head_of_other_names_or_in_another_order_starts_afresh(make_detector, caplog, names):
    source, same, other = make_detector(), make_detector(), make_detector()
    torch.nn.init.normal_(source.head.cls_logits.bias)
    torch.nn.init.normal_(source.fpn.p6.bias)
    checkpoint = {"model": source.state_dict(), "classes": ["bird", "cat", "dog"]}
    assert load_detector_weights(same, checkpoint, class_names=["bird", "cat", "dog"]) == []
    assert torch.equal(same.head.cls_logits.bias, source.head.cls_logits.bias) and not caplog.records
    skipped = load_detector_weights(other, checkpoint, class_names=names)
    assert skipped == ["head.cls_logits.weight", "head.cls_logits.bias"]
    assert len(other.head.cls_logits.bias.unique()) == 1
    assert torch.equal(other.fpn.p6.bias, source.fpn.p6.bias)
    assert f"of bird, cat, dog, and not of {', '.join(names)}: it starts afresh" in caplog.text


def test_averaged_weights_are_preferred(make_detector):
    model, ema, tuned = make_detector(), make_detector(), make_detector(num_classes=7)
    torch.nn.init.normal_(ema.fpn.p6.bias)
    skipped = load_detector_weights(tuned, {"model": model.state_dict(), "ema": ema.state_dict()})
    assert torch.equal(tuned.fpn.p6.bias, ema.fpn.p6.bias)
    assert skipped == ["head.cls_logits.weight", "head.cls_logits.bias"]


@pytest.mark.parametrize(
    "other", [{"backbone": "resnet34"}, {"norm": "batch"}, {"anchor_ratios": (1.0,)}, {"head_convs": 2}]
)
def test_fine_tuning_from_another_network(make_detector, other):
    source = make_detector(**other)
    with pytest.raises(WeightsError) as error:
        load_detector_weights(make_detector(), {"model": source.state_dict()})
    assert_one_line(error, "another network")


@pytest.mark.parametrize("checkpoint", [{}, {"model": None}, {"model": [1]}])
def test_fine_tuning_from_something_else(make_detector, checkpoint):
    with pytest.raises(WeightsError) as error:
        load_detector_weights(make_detector(), checkpoint)
    assert_one_line(error, "train.py")


def test_fine_tuning_from_a_missing_file(make_detector, tmp_path):
    with pytest.raises(WeightsError) as error:
        make_detector(init_from=str(tmp_path / "absent.pt"))
    assert_one_line(error, "absent.pt")
