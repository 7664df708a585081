"""`model.init_from` by name: the keys that come with a released detector, and its weights by torchvision's API."""

import urllib.error

import pytest
import torch
from torchvision.models.detection import (
    fasterrcnn_resnet50_fpn,
    fcos_resnet50_fpn,
    retinanet_resnet50_fpn,
    retinanet_resnet50_fpn_v2,
)

from detector import WeightsError, build_detector
from detector.families import FAMILIES, start_keys
from engine.run.config import ConfigError, load_config, parse_config

V1, V2 = "torchvision/retinanet_resnet50_fpn", "torchvision/retinanet_resnet50_fpn_v2"
FCOS, FASTER_RCNN = "torchvision/fcos_resnet50_fpn", "torchvision/fasterrcnn_resnet50_fpn"
CONFIGS = {
    V1: "configs/torchvision_r50.yaml",
    V2: "configs/torchvision_r50_v2.yaml",
    FCOS: "configs/torchvision_fcos_r50.yaml",
    FASTER_RCNN: "configs/torchvision_r50_faster_rcnn.yaml",
}
FILES = {
    V1: "retinanet_resnet50_fpn_coco-eeacb38b.pth",
    V2: "retinanet_resnet50_fpn_v2_coco-5905b1c5.pth",
    FCOS: "fcos_resnet50_fpn_coco-99b0c9b7.pth",
    FASTER_RCNN: "fasterrcnn_resnet50_fpn_coco-258fb6c6.pth",
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_start_brings_the_network_of_the_shipped_configuration(name):
    shipped = load_config(CONFIGS[name]).model.model_dump()
    own = parse_config({"model": {"init_from": name}}, "mine.yaml").model.model_dump()
    differing = {key for key in shipped if shipped[key] != own[key]}
    assert differing - {"init_from", "weights", "detections_per_img"} <= {"score_thresh"}
    assert own["weights"] == "DEFAULT" and own["init_from"] == name


def test_keys_that_are_no_part_of_the_network_stay_free():
    values = {"init_from": V2, "score_thresh": 0.2, "frozen_stages": 0, "matcher": "atss", "anchor_base_scale": 4}
    model = parse_config({"model": values}, "mine.yaml").model
    assert (model.score_thresh, model.frozen_stages, model.matcher) == (0.2, 0, "atss")


def test_all_contradicting_keys_are_refused_by_name():
    values = {"init_from": V2, "p6_from": "p5", "anchor_base_scale": 2.0, "frozen_stages": 0}
    with pytest.raises(ConfigError) as caught:
        parse_config({"model": values}, "mine.yaml")
    text = str(caught.value)
    assert text.startswith("mine.yaml: ") and "\n" not in text
    assert "model.p6_from is p5, there c5" in text and "model.anchor_base_scale is 2.0, there 4.0" in text
    assert "frozen_stages" not in text and "fpn_channels" not in text


def test_a_base_file_and_the_command_line_contradict_alike():
    with pytest.raises(ConfigError, match=r"model\.backbone is resnet18, there resnet50.*model\.fpn_channels is 128"):
        load_config("configs/bccd_r18_alrp.yaml", [f"model.init_from={V1}"])
    with pytest.raises(ConfigError, match=r"model\.family is fcos, there retinanet"):
        load_config("configs/r50_alrp.yaml", [f"model.init_from={V1}", "model.family=fcos"])
    with pytest.raises(ValueError, match=r"model\.head_convs is 1, there 4"):
        build_detector({"model": {"init_from": V1, "head_convs": 1}}, 3)


def test_a_resolved_configuration_agrees_with_its_start():
    first = parse_config({"model": {"init_from": V2}}, "mine.yaml")
    assert parse_config(first.to_dict(), "config.yaml") == first


@pytest.mark.parametrize("name", ["torchvision/retinanet_resnet50", "alrp/r50"])
def test_an_unknown_name_lists_the_known_ones(name):
    with pytest.raises(ConfigError, match=rf"{name}'.*{V1}, {V2}"):
        parse_config({"model": {"init_from": name}}, "mine.yaml")
    parse_config({"model": {"init_from": f"{name}.pt"}}, "config.yaml")  # a file that is gone is no matter of a config


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder of torch.hub, empty, and no net."""

    def unreachable(*args, **kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints"


@pytest.mark.parametrize("name", FILES)
def test_offline_one_line_has_url_and_folder(cache, name):
    with pytest.raises(WeightsError) as caught:
        build_detector({"model": {"init_from": name}}, 3)
    text = str(caught.value)
    assert "\n" not in text and name in text and str(cache) in text
    assert f"https://download.pytorch.org/models/{FILES[name]}" in text


@pytest.mark.parametrize(
    ("name", "build", "num_classes"),
    [
        (V2, retinanet_resnet50_fpn_v2, 80),  # as many classes as there are names, of other columns
        (FCOS, fcos_resnet50_fpn, 3),
        (FASTER_RCNN, fasterrcnn_resnet50_fpn, 3),
    ],
)
def test_everything_but_the_class_head_is_loaded_from_the_cache(cache, caplog, name, build, num_classes):
    torch.manual_seed(7)
    theirs = build(weights=None, weights_backbone=None)
    torch.save(theirs.state_dict(), cache / FILES[name])
    torch.manual_seed(0)
    detector = build_detector({"model": {"init_from": name}}, num_classes)
    torch.manual_seed(0)
    keys = dict(start_keys({"init_from": name}))
    fresh = build_detector({"model": keys, "loss": {}}, num_classes, load_weights=False)
    assert "class head of other classes" in caplog.text
    expected = FAMILIES[keys["family"]].released["torchvision"](theirs.state_dict()).weights
    compared = 0
    for key, value in detector.state_dict().items():
        if key in detector.class_head:
            assert torch.equal(value, fresh.state_dict()[key]), key
        elif key in expected:
            assert torch.equal(value, expected[key]), key
            compared += 1
    assert compared == len(expected) - len(detector.class_head)


@pytest.mark.parametrize(
    ("name", "loss"),
    [(name, loss) for name in FILES for loss in FAMILIES[start_keys({"init_from": name})["family"]].losses],
)
def test_a_start_has_a_place_for_all_its_weights_whatever_the_loss(name, loss):
    builds = {V2: retinanet_resnet50_fpn_v2, FCOS: fcos_resnet50_fpn, FASTER_RCNN: fasterrcnn_resnet50_fpn}
    build = builds.get(name, retinanet_resnet50_fpn)
    with torch.device("meta"):
        theirs = build(weights=None, weights_backbone=None).state_dict()
        detector = build_detector({"model": {"init_from": name}, "loss": {"name": loss}}, 3, load_weights=False)
    family = FAMILIES[start_keys({"init_from": name})["family"]]
    assert family.released["torchvision"](theirs).weights.keys() <= detector.state_dict().keys()


def test_another_branch_of_centreness_than_that_of_the_start_is_refused():
    for branch in ("cls", None):
        with pytest.raises(ConfigError, match=rf"model\.centerness is {branch}, there box"):
            parse_config({"model": {"init_from": FCOS, "centerness": branch}}, "mine.yaml")
