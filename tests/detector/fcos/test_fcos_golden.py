"""FCOS beside the authors' code: losses, gradients, head and detections."""

import json
import zlib

import numpy as np
import pytest
import torch
from fcos_grids import cells_of

from detector.config import loss_settings
from detector.fcos.build import STRIDES
from detector.fcos.head import FCOSHead
from detector.fcos.objective import FCOSObjective
from detector.fcos.points import RANGE_LIMITS, DistanceCoding, PointMatcher
from detector.fcos.postprocess import detections_of_points
from detector.postprocess import PostProcessor
from losses.table import build_loss

LOSSES = ("imprv_mid", "imprv_overlap", "imprv_one_object", "imprv_image_without_objects")
FIRST_LOSSES = ("base_mid", "base_overlap", "base_no_objects")


def load(shared, name: str) -> dict[str, np.ndarray]:
    return dict(np.load(shared / "golden/fcos" / f"{name}.npz"))


def doubles(golden: dict[str, np.ndarray], *names: str) -> list[torch.Tensor]:
    return [torch.from_numpy(golden[name]).double().requires_grad_() for name in names]


def targets_of(golden: dict[str, np.ndarray]) -> list[dict[str, torch.Tensor]]:
    boxes, labels = torch.from_numpy(golden["boxes"]), torch.from_numpy(golden["labels"]).long()
    counts = golden["num_boxes"].tolist()
    return [
        {"boxes": b, "labels": k, "crowd": torch.zeros(len(b), dtype=torch.bool)}
        for b, k in zip(boxes.split(counts), labels.split(counts), strict=True)
    ]


@pytest.mark.parametrize("name", [*LOSSES, *FIRST_LOSSES])
def test_losses_and_gradients(shared, name):
    golden, first = load(shared, name), name in FIRST_LOSSES
    cls_logits, distances, ctr_logits = inputs = doubles(golden, "cls_logits", "distances", "ctr_logits")
    loss = build_loss(loss_settings({"name": "focal", "box_loss": "log_iou" if first else "giou"}))
    matcher = PointMatcher(STRIDES, None if first else 1.5, RANGE_LIMITS)
    objective = FCOSObjective(matcher, loss, False, DistanceCoding(in_strides=not first))
    cells = [level.double() for level in cells_of(tuple(golden["image_size"].tolist()))]
    losses = objective(cls_logits, distances, ctr_logits, cells, targets_of(golden))

    # mmdet adds the resolution of float32 to its number of positives, which shows where that is 1
    for part, key, tolerance in (
        ("loss_cls", "cls", 1e-10 if len(golden["positives"]) else 2e-7),
        ("loss_loc", "reg", 1e-6),
        ("loss_centerness", "ctr", 1e-6),
    ):
        assert losses[part].item() == pytest.approx(golden[f"mmdet_loss_{key}"].item(), rel=tolerance, abs=1e-12)
    if "authors_loss_ctr" in golden:
        assert losses["loss_centerness"].item() == pytest.approx(golden["authors_loss_ctr"].item(), rel=1e-10)
    assert losses["loss"].item() == pytest.approx(sum(losses[k].item() for k in losses if k != "loss"))

    losses["loss"].backward()
    positives = torch.from_numpy(golden["positives"]).long()
    of_cls, of_distances, of_centerness = (value.grad.flatten(0, 1) for value in inputs)
    close(of_cls, golden["grad_cls"].reshape(of_cls.shape), 1e-12 if len(positives) else 2e-7)
    close(of_distances[positives], golden["mmdet_grad_reg"], 1e-6)
    close(of_centerness[positives], golden["mmdet_grad_ctr"], 1e-6)
    assert of_distances.count_nonzero(1).count_nonzero() <= len(positives)


def close(got: torch.Tensor, expected: np.ndarray, tolerance: float) -> None:
    torch.testing.assert_close(got, torch.from_numpy(expected).double(), rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", ["inference", "inference_topk"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_detections(shared, name, dtype):
    golden = load(shared, name)
    arrays = ("cls_logits", "distances_in_strides", "ctr_logits")
    predictions = [torch.from_numpy(golden[key]).to(dtype) for key in arrays]
    postprocess = PostProcessor(topk_candidates=int(golden["topk"]), nms_thresh=0.6, coding=DistanceCoding())
    cells = [level.to(dtype) for level in cells_of(tuple(golden["image_size"].tolist()))]
    found = detections_of_points(postprocess, *predictions, cells, [tuple(golden["clip_size"].tolist())] * 2)
    for image, detections in enumerate(found):
        expected = {key: torch.from_numpy(golden[f"{key}_{image}"]) for key in ("boxes", "scores", "labels")}
        assert torch.equal(detections["labels"], expected["labels"].long())
        exact = dtype == torch.float64
        torch.testing.assert_close(
            detections["scores"].double(), expected["scores"], rtol=0, atol=1e-14 if exact else 1e-6
        )
        torch.testing.assert_close(
            detections["boxes"].double(), expected["boxes"], rtol=0, atol=1e-12 if exact else 1e-4
        )


def our_name(theirs: str) -> str:
    for old, new in (("bbox_tower", "box_tower"), ("bbox_pred", "distances")):
        theirs = theirs.replace(old, new)
    return theirs


def golden_weight(name: str, shape: list[int]) -> torch.Tensor:
    r = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode()))).double()
    if name.startswith("scales.") or (len(shape) == 1 and name.endswith(".weight")):
        return 1 + 0.1 * r
    if len(shape) == 1:
        return 0.1 * r - (2 if name == "cls_logits.bias" else 0)
    return r / r[0].numel() ** 0.5


@pytest.mark.parametrize("name", ["head_imprv", "head_base"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)], ids=str)
def test_head(shared, name, dtype, tolerance):
    golden, first = load(shared, name), name == "head_base"
    head = FCOSHead(64, 5, centerness="cls" if first else "box", exponential=first)
    state, scales = {}, torch.ones(5, dtype=torch.float64)
    for theirs, text in zip(golden["names"].tolist(), golden["shapes"].tolist(), strict=True):
        weight = golden_weight(theirs, json.loads(text))
        if theirs.startswith("scales."):
            scales[int(theirs.split(".")[1])] = weight.item()
        else:
            state[our_name(theirs)] = weight
    head.to(torch.float64).load_state_dict(state | {"level_scales": scales})
    generator = torch.Generator().manual_seed(int(golden["seed"]))
    maps = [torch.randn(1, 64, *size, generator=generator).to(dtype) for size in golden["sizes"].tolist()]
    with torch.no_grad():
        outputs = head.to(dtype)(maps)
    for got, key in zip(outputs, ("cls_logits", "distances", "ctr_logits"), strict=True):
        torch.testing.assert_close(got.double(), torch.from_numpy(golden[key]), rtol=tolerance, atol=tolerance)
