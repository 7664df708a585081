"""The loss of CenterNet: cases worked by hand, laws, no objects, ignored cells, and two processes against one."""

import math
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from detector.config import loss_settings
from losses.centernet import CenterNetLoss, Keypoints, heat_map_loss, offset_loss, pull_and_push


def keypoints(num_images: int = 3, per_image: int = 2) -> Keypoints:
    """A batch of random predictions and targets, 4×5 cells and two classes, float64."""
    generator = torch.Generator().manual_seed(0)
    objects = num_images * per_image
    heat = torch.rand(num_images, 3, 2, 4, 5, generator=generator, dtype=torch.float64)
    heat[:, :, 0, 1, 2] = 1
    heat[:, :, 1, 3, :2] = -1
    return Keypoints(
        logits=torch.randn(heat.shape, generator=generator, dtype=torch.float64).requires_grad_(),
        heat=heat,
        tags=torch.randn(objects, 2, generator=generator, dtype=torch.float64).requires_grad_(),
        pred_offsets=torch.randn(objects, 3, 2, generator=generator, dtype=torch.float64).requires_grad_(),
        offsets=torch.rand(objects, 3, 2, generator=generator, dtype=torch.float64),
        image=torch.arange(num_images).repeat_interleave(per_image),
    )


def test_heat_maps_by_hand():
    # One cell of every kind on the first map: at the keypoint p = 3/4, beside it y = 1/2 and p = 1/2, ignored.
    logits, heat = torch.zeros(1, 3, 1, 1, 3), torch.zeros(1, 3, 1, 1, 3)
    logits[0, 0, 0, 0, 0] = math.log(3)
    heat[0, 0] = torch.tensor([[[1, 0.5, -1]]])
    first = -(0.25**2) * math.log(0.75) - 0.5**4 * 0.5**2 * math.log(0.5)
    # The other two maps, without a keypoint, are not divided: three cells each of p = 1/2.
    others = 2 * 3 * -(0.5**2) * math.log(0.5)
    assert heat_map_loss(logits, heat).item() == pytest.approx(first + others, rel=1e-6)


def test_a_map_is_divided_by_its_own_keypoints():
    logits, heat = torch.zeros(2, 3, 1, 2, 2), torch.zeros(2, 3, 1, 2, 2)
    heat[:, 1, 0, 0] = 1  # four keypoints on the second map
    empty, full = 8 * 0.25 * math.log(2), (4 * 0.25 + 4 * 0.25) * math.log(2) / 4
    assert heat_map_loss(logits, heat).item() == pytest.approx(2 * empty + full, rel=1e-6)


def test_tags_by_hand():
    # Image 0: tags (0, 2) and (1, 1.5), whose means 1 and 1.25 are 0.25 apart; image 1 has one object.
    tags, image = torch.tensor([[0.0, 2.0], [1.0, 1.5], [7.0, 8.0]]).double(), torch.tensor([0, 0, 1])
    pull, push = pull_and_push(tags, image, 2)
    assert pull.item() == pytest.approx((1 + 1 + 2 * 0.25**2) / 2.0001 + 0.5 / 1.0001, rel=1e-12)
    pairs = 2 * (1 - 1 / 2.0001) + 2 * (0.75 - 1 / 2.0001)
    assert push.item() == pytest.approx(pairs / 2.0001 + (1 - 1 / 1.0001) / 1e-4, rel=1e-9)
    _, wider = pull_and_push(tags, image, 2, margin=2.0)
    assert wider.item() > push.item()


def test_offsets_by_hand():
    pred, right = torch.zeros(2, 3, 2), torch.zeros(2, 3, 2)
    pred[0, 1, 0], pred[1, 2, 1] = 0.5, -3.0
    assert offset_loss(pred, right).item() == pytest.approx((0.125 + 2.5) / 2.0001, rel=1e-6)


def test_weights_and_exponents_are_keys():
    batch, usual = keypoints(), CenterNetLoss().of_keypoints(keypoints())
    keys = {"pull_weight": 2.0, "push_weight": 3.0, "offset_weight": 0.0}
    parts = CenterNetLoss(loss_settings({"name": "centernet", **keys})).of_keypoints(batch)
    assert {name: value.item() for name, value in parts.items() if name != "loss"} == {
        name: value.item() for name, value in usual.items() if name != "loss"
    }
    assert parts["loss"].item() == pytest.approx(
        (parts["loss_cls"] + 2 * parts["loss_pull"] + 3 * parts["loss_push"]).item(), rel=1e-12
    )
    with pytest.raises(ValueError, match="gamma must be"):
        loss_settings({"name": "centernet", "gamma": -1.0})
    with pytest.raises(ValueError, match="margin must be"):
        loss_settings({"name": "centernet", "margin": 0.0})


def test_ignored_cells_and_cells_of_keypoints_get_no_gradient_as_negatives():
    batch = keypoints()
    CenterNetLoss().of_keypoints(batch)["loss"].backward()
    gradient = batch.logits.grad
    assert not gradient[batch.heat == -1].any()
    assert (gradient[batch.heat == 1] < 0).all()
    assert (gradient[(batch.heat >= 0) & (batch.heat < 1)] > 0).all()


def test_without_objects_all_parts_are_attached_to_the_graph():
    batch = keypoints(per_image=0)
    batch = replace(batch, heat=batch.heat.clamp(max=0.5))
    parts = CenterNetLoss().of_keypoints(batch)
    assert parts["loss_pull"] == parts["loss_push"] == parts["loss_loc"] == 0
    parts["loss"].backward()
    assert all(value.grad is not None for value in (batch.logits, batch.tags, batch.pred_offsets))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_logit_that_is_not_finite_shows(value):
    batch = keypoints()
    with torch.no_grad():
        batch.logits[0, 0, 0, 0, 0] = value
    assert not CenterNetLoss().of_keypoints(batch)["loss"].isfinite()


def of_images(batch: Keypoints, images: list[int]) -> Keypoints:
    """The part of a batch that a process has; image numbers start again."""
    own = torch.isin(batch.image, torch.tensor(images))
    values = {field.name: getattr(batch, field.name).detach() for field in fields(batch)}
    parts = {name: value[images] if name in ("logits", "heat") else value[own] for name, value in values.items()}
    parts["image"] = torch.searchsorted(torch.tensor(images), parts["image"])
    predicted = {name: parts[name].requires_grad_() for name in ("logits", "tags", "pred_offsets")}
    return Keypoints(**parts | predicted)


SHARES = [[0, 1], [2]]


def work(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    batch = of_images(keypoints(), SHARES[rank])
    parts = CenterNetLoss().of_keypoints(batch, dist.group.WORLD)
    parts["loss"].backward()
    gradients = [batch.logits.grad, batch.tags.grad, batch.pred_offsets.grad]
    torch.save(({name: value.detach() for name, value in parts.items()}, gradients), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_are_as_one_with_the_joined_batch(tmp_path: Path):
    mp.spawn(work, (str(tmp_path),), nprocs=2)
    results = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    batch = keypoints()
    parts = CenterNetLoss().of_keypoints(batch)
    parts["loss"].backward()
    for name, value in parts.items():
        assert results[0][0][name] == results[1][0][name] == pytest.approx(value.item(), rel=1e-12)
    for index, whole in enumerate((batch.logits.grad, batch.tags.grad, batch.pred_offsets.grad)):
        torch.testing.assert_close(torch.cat([result[1][index] for result in results]), whole, rtol=1e-12, atol=1e-15)
