"""CenterNet beside the authors' code: targets, losses with gradients, pooling, branches and decoding."""

import json
import zlib

import numpy as np
import pytest
import torch

from detector.centernet import bottom_pool, left_pool, right_pool, top_pool
from detector.centernet.decode import TripletDecoder
from detector.centernet.head import Maps
from detector.centernet.objective import CenterNetObjective
from detector.centernet.pooling import CenterPooling, CornerPooling
from detector.centernet.targets import keypoint_targets
from losses.centernet import CenterNetLoss

KINDS = ("tl", "br", "ct")
POOLS = {"left": left_pool, "right": right_pool, "top": top_pool, "bottom": bottom_pool}
# names of the released branches -> ours; pool 1 is the one along rows
CORNER = {
    "p1_conv1": "row_in",
    "p2_conv1": "column_in",
    "look_conv1": "row_look",
    "look_conv2": "column_look",
    "P1_look_conv": "row_conv",
    "P2_look_conv": "column_conv",
}
CENTER = {"p1_conv1": "column_in", "p2_conv1": "row_in"}
SHARED = {
    "p_conv1": "merge",
    "p_bn1": "merge_norm",
    "conv1": "shortcut",
    "bn1": "shortcut_norm",
    "conv2": "out",
}


@pytest.fixture
def load(shared):
    return lambda name: dict(np.load(shared / "golden/centernet" / f"{name}.npz"))


def targets_of(golden: dict[str, np.ndarray]) -> list[dict[str, torch.Tensor]]:
    boxes, labels = torch.from_numpy(golden["boxes"]).double(), torch.from_numpy(golden["labels"]).long()
    counts = golden["num_boxes"].tolist()
    return [
        {"boxes": b, "labels": k, "crowd": torch.zeros(len(b), dtype=torch.bool)}
        for b, k in zip(boxes.split(counts), labels.split(counts), strict=True)
    ]


@pytest.mark.parametrize("name", ["targets_511", "targets_same_cell"])
def test_targets(load, name):
    golden = load(name)
    image_size, map_size = ((int(golden[key]),) * 2 for key in ("input_size", "output_size"))
    found = keypoint_targets(targets_of(golden), int(golden["num_classes"]), image_size, map_size)
    given = golden["mask"].astype(bool)
    for index, kind in enumerate(KINDS):
        heat = torch.zeros(golden["shape"].tolist(), dtype=torch.float64).flatten()
        heat[torch.from_numpy(golden[f"{kind}_heat_index"]).long()] = torch.from_numpy(golden[f"{kind}_heat"]).double()
        torch.testing.assert_close(found.heat[:, index].flatten(), heat, rtol=0, atol=1e-6)
        assert torch.equal(found.heat[:, index].flatten() == 1, heat == 1)
        columns, rows = found.cells[:, index].T
        assert (rows * map_size[1] + columns).tolist() == golden[f"{kind}_cell"][given].tolist()
        offsets = torch.from_numpy(golden[f"{kind}_offset"][given]).double()
        torch.testing.assert_close(found.offsets[:, index].double(), offsets, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["mid", "same_cell", "one_object_and_none", "no_objects"])
def test_losses_and_gradients(load, name):
    golden = load(f"loss_{name}")
    inputs = {
        f"{kind}_{what}": torch.from_numpy(golden[f"{kind}_{what}"]).double().requires_grad_()
        for what in ("logits", "tags", "offsets")
        for kind in KINDS
        if f"{kind}_{what}" in golden
    }
    maps = Maps(
        *(
            torch.stack([inputs[f"{kind}_{what}"] for kind in kinds], dim=1)
            for what, kinds in (("logits", KINDS), ("tags", KINDS[:2]), ("offsets", KINDS))
        )
    )
    losses = CenterNetObjective(CenterNetLoss(), False)(maps, (int(golden["input_size"]),) * 2, targets_of(golden))
    expected = {
        "loss": golden["total"],
        "loss_cls": golden["focal"],
        "loss_pull": golden["pull"] / golden["pull_weight"],
        "loss_push": golden["push"] / golden["push_weight"],
        "loss_loc": golden["offset"],
    }
    assert losses.keys() == expected.keys()
    for part, value in expected.items():
        assert losses[part].item() == pytest.approx(float(value), rel=1e-10, abs=1e-12), part
    losses["loss"].backward()
    for key, value in inputs.items():
        assert value.grad is not None
        gradient = torch.from_numpy(golden[f"grad_{key}"]).double()
        tolerance = 1e-5 if key.endswith("logits") else 1e-10
        torch.testing.assert_close(value.grad, gradient, rtol=tolerance, atol=tolerance * float(gradient.abs().max()))


@pytest.mark.parametrize("name", ["corner_pool", "corner_pool_ties"])
@pytest.mark.parametrize("side", POOLS)
def test_pools_and_their_gradients_are_exact(load, name, side):
    golden = load(name)
    x = torch.from_numpy(golden["x"]).double().requires_grad_()
    pooled = POOLS[side](x)
    assert torch.equal(pooled, torch.from_numpy(golden[side]))
    assert torch.equal(POOLS[side](x.detach()), pooled)
    pooled.backward(torch.from_numpy(golden["grad_output"]).double())
    assert torch.equal(x.grad, torch.from_numpy(golden[f"grad_{side}"]))


@pytest.mark.parametrize("kind", KINDS)
def test_branches(load, kind):
    golden = load("branches")
    names, shapes = golden[f"{kind}_names"].tolist(), golden[f"{kind}_shapes"].tolist()
    modules = {
        "tl": lambda: CornerPooling(16, 128, "batch", top_pool, left_pool),
        "br": lambda: CornerPooling(16, 128, "batch", bottom_pool, right_pool),
        "ct": lambda: CenterPooling(16, 128, "batch"),
    }
    branch = modules[kind]().double().eval()
    renamed = SHARED | (CENTER if kind == "ct" else CORNER)
    state = {}
    for name, shape in zip(names, shapes, strict=True):
        module, *rest = name.split(".")
        rest = [{"conv": "0", "bn": "1"}.get(part, part) for part in rest]
        state[".".join([renamed[module], *rest])] = rebuilt(name, json.loads(shape))
    branch.load_state_dict(state)
    x = torch.randn(1, 16, 9, 11, generator=torch.Generator().manual_seed(int(golden["seed"]))).double()
    assert x.flatten()[:5].tolist() == golden["x_check"].tolist()
    with torch.no_grad():
        torch.testing.assert_close(branch(x), torch.from_numpy(golden[kind]), rtol=1e-9, atol=1e-9)


def rebuilt(name: str, shape: list[int]) -> torch.Tensor:
    """A weight by its name, by the recipe of the golden networks."""
    if name.endswith("num_batches_tracked"):
        return torch.tensor(0)
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    if name.endswith("running_var"):
        return 0.5 + torch.rand(shape, generator=generator).double()
    value = torch.randn(shape, generator=generator).double()
    if len(shape) > 1:
        return value / value[0].numel() ** 0.5
    return 1 + 0.1 * value if name.endswith(".weight") else 0.1 * value


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_triplets(load, dtype):
    golden = load("decode")
    maps = Maps(
        *(
            torch.stack([torch.from_numpy(golden[f"{kind}_{what}"]).to(dtype) for kind in kinds], dim=1)
            for what, kinds in (("logits", KINDS), ("tags", KINDS[:2]), ("offsets", KINDS))
        )
    )
    decoder = TripletDecoder(topk_candidates=int(golden["top_k"]))
    found = decoder.triplets(maps, [(1000, 1000)] * 2)  # nothing is outside, or clipped
    for image in range(2):
        own = found.chosen(found.images == image)
        table = torch.cat([own.boxes, own.scores[:, None], own.labels[:, None]], dim=1).double()
        expected = torch.from_numpy(golden[f"kept_{image}"])
        order, other = table[:, 4].argsort(descending=True), expected[:, 4].argsort(descending=True)
        torch.testing.assert_close(table[order], expected[other], rtol=0, atol=1e-6 if dtype == torch.float64 else 1e-4)
