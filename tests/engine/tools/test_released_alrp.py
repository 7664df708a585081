"""engine/tools/released.py: the authors' checkpoints of all rows, and what their networks compute."""

import json
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from released_weights import rebuilt_checkpoint
from torch.nn.parameter import Parameter

from detector import build_detector
from detector.retinanet.retinanet import RetinaNet
from engine.run.checkpoint import CheckpointError, save_checkpoint
from engine.run.config import load_config
from engine.run.load import load_detector
from engine.tools.released import CONFIGS, convert, read_released

ROWS = {
    "ap_loss_retinanet_r50_fpn_100e_coco500": "r50_alrp",  # the same network as the next
    "alrp_loss_retinanet_r50_fpn_100e_coco500": "r50_alrp",
    "alrp_loss_retinanet_r50_fpn_ATSS_100e_coco500": "r50_alrp_atss",
    "alrp_loss_retinanet_r101_fpn_ATSS_100e_coco500": "r101_alrp_atss",
    "alrp_loss_retinanet_x101_64x4d_fpn_ATSS_100e_coco500": "x101_alrp_atss",
    "alrp_loss_retinanet_r101_fpn_ATSS_100e_coco800": "r101_alrp_atss_800",
    "alrp_loss_retinanet_x101_64x4d_fpn_ATSS_100e_coco800": "x101_alrp_atss_800",
    "alrp_loss_retinanet_x101_64x4d_fpn_dcn_ATSS_100e_coco800": "x101_dcn_alrp_atss_800",
}
GOLDEN = ("alrp_loss_retinanet_r50_fpn_100e_coco500", "alrp_loss_retinanet_x101_64x4d_fpn_dcn_ATSS_100e_coco800")
R50 = GOLDEN[0]


def shapes_file(shared: Path, row: str) -> Path:
    return shared / f"golden/checkpoints/{row}.json"


def empty_checkpoint(shared: Path, row: str) -> dict[str, torch.Tensor]:
    shapes = json.loads(shapes_file(shared, row).read_text())
    return {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}


@pytest.mark.parametrize(("row", "config"), ROWS.items(), ids=ROWS)
def test_every_row_is_recognised_and_has_its_number_of_parameters(shared, row, config):
    state = empty_checkpoint(shared, row)
    checkpoint = convert("alrp", {"state_dict": state, "meta": {"epoch": 100, "iter": 366500}}, row)
    assert checkpoint["config"] == load_config(CONFIGS / f"{config}.yaml").to_dict()
    assert (checkpoint["epoch"], checkpoint["step"], len(checkpoint["classes"])) == (100, 366500, 80)
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    expected = sum(value.numel() for name, value in state.items() if not name.endswith(statistics))
    for name in (config, "r50_ap" if row.startswith("ap_") else config):
        with torch.device("meta"):
            detector = build_detector(load_config(CONFIGS / f"{name}.yaml"), 80, load_weights=False)
        assert sum(parameter.numel() for parameter in detector.parameters()) == expected


@pytest.fixture(scope="module", params=[R50, pytest.param(GOLDEN[1], marks=pytest.mark.slow)])
def released(request, shared, tmp_path_factory) -> tuple[RetinaNet, dict[str, np.ndarray], torch.Tensor]:
    """A converted detector through its file, what the authors' network computes, and the input."""
    golden = np.load(shared / f"golden/network/{request.param}.npz")
    file = tmp_path_factory.mktemp("released") / "theirs.pth"
    torch.save({"state_dict": rebuilt_checkpoint(shapes_file(shared, request.param)), "meta": {}}, file)
    save_checkpoint(file.with_name("ours.pt"), convert("alrp", read_released(file), "theirs.pth"))
    detector, _ = load_detector(file.with_name("ours.pt"))
    detector.pixel_mean.zero_()  # the stored input is normalised already
    detector.pixel_std.fill_(1.0)
    generator = torch.Generator().manual_seed(golden["seed"].item())
    return detector, golden, torch.randn(tuple(golden["shape"]), generator=generator)


def test_maps_agree(released):
    detector, golden, images = released
    with torch.no_grad():
        *outputs, anchors_per_level = detector.raw_outputs(images)
    first = 0
    for level, anchors in enumerate(anchors_per_level):
        for key, output in zip(("cls", "reg"), outputs, strict=True):
            shape = golden[f"{key}{level}_shape"].tolist()  # (1, anchors·width, h, w)
            maps = output[:, first : first + len(anchors)].reshape(1, *shape[2:], shape[1]).permute(0, 3, 1, 2)
            sample = maps.flatten()[torch.from_numpy(golden[f"{key}{level}_index"])]
            expected = torch.from_numpy(golden[f"{key}{level}_value"])
            torch.testing.assert_close(sample, expected, rtol=0.0, atol=1e-4 * expected.abs().mean().item())
        first += len(anchors)


def test_pyramid_levels_agree_in_the_mean(released):
    detector, golden, images = released
    with torch.no_grad():
        pyramid = detector.fpn(detector.backbone(images))
    means = [level.abs().mean().item() for level in pyramid]
    assert means == pytest.approx(golden["p_absmean"].tolist(), rel=1e-5)


def test_detections_agree(released):
    detector, golden, images = released
    (found,) = detector(images)
    assert found["labels"].tolist() == golden["labels"].tolist()
    torch.testing.assert_close(found["scores"], torch.from_numpy(golden["scores"]), rtol=0.0, atol=1e-5)
    torch.testing.assert_close(found["boxes"], torch.from_numpy(golden["boxes"]), rtol=0.0, atol=1e-3)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda state: state.pop("neck.fpn_convs.4.conv.bias"), "fpn.p7.bias is missing"),
        (lambda state: state.update({"bbox_head.extra": torch.zeros(1)}), "bbox_head.extra is left over"),
        (lambda state: state.update({"backbone.bn1.weight": torch.zeros(3)}), "backbone.bn1.weight has shape (3,)"),
        (lambda state: state.pop("backbone.layer3.5.conv1.weight"), "no released model has 5 blocks"),
        (lambda state: state.pop("bbox_head.retina_reg.weight"), "no tensor bbox_head.retina_reg.weight"),
        (lambda state: state.update({"backbone.conv1.weight": [1]}), "no state dict"),
    ],
)
def test_what_does_not_fit_is_named(shared, change, expected):
    state = empty_checkpoint(shared, R50)
    change(state)
    with pytest.raises(CheckpointError) as error:
        convert("alrp", {"state_dict": state}, "theirs.pth")
    assert "theirs.pth: " in str(error.value) and expected in str(error.value) and "\n" not in str(error.value)


def test_class_names_of_the_file_are_kept(shared):
    state = empty_checkpoint(shared, R50)
    names = tuple(f"class {i}" for i in range(80))
    assert convert("alrp", {"state_dict": state, "meta": {"CLASSES": names}}, "x")["classes"] == list(names)
    assert convert("alrp", state, "x")["classes"][:2] == ["person", "bicycle"]


class Hook:
    """What a checkpoint of a framework may hold beside tensors."""


def test_unsafe_files_are_refused_with_the_way_out(tmp_path):
    path = tmp_path / "unsafe.pth"
    torch.save({"state_dict": OrderedDict(a=Parameter(torch.zeros(1))), "meta": {"hook": Hook()}}, path)
    with pytest.raises(CheckpointError) as error:
        read_released(path)
    message = str(error.value)
    assert "Hook" in message and "weights_only=False" in message and "\n" not in message


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 truncated", None])
def test_unreadable_files_are_named(tmp_path, content):
    path = tmp_path / "theirs.pth"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"theirs\.pth"):
        read_released(path)
