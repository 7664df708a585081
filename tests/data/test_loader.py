import json
import os
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from data import CocoDetection, DatasetError, collate, eval_loader, eval_transform, train_loader, train_transform
from data.loader import HANDED_NOTHING_OVER, blank_batch, padded_size

REPOSITORY = Path(__file__).resolve().parents[2]


def sample(height: int, width: int, num_objects: int, image_id: int) -> tuple[torch.Tensor, dict]:
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
    target = {
        "boxes": torch.rand(num_objects, 4),
        "labels": torch.arange(num_objects),
        "crowd": torch.zeros(num_objects, dtype=torch.bool),
        "image_id": image_id,
        "orig_size": (height, width),
        "size": (height, width),
    }
    return image, target


def assert_equal_batches(a: list, b: list) -> None:
    assert len(a) == len(b)
    for (images_a, targets_a), (images_b, targets_b) in zip(a, b, strict=True):
        assert torch.equal(images_a, images_b)
        for target_a, target_b in zip(targets_a, targets_b, strict=True):
            assert target_a.keys() == target_b.keys()
            for key, value in target_a.items():
                same = torch.equal(value, target_b[key]) if isinstance(value, torch.Tensor) else value == target_b[key]
                assert same, key


def test_padding_fills_right_and_bottom_up_to_a_multiple_of_32() -> None:
    samples = [sample(40, 64, 2, 1), sample(33, 70, 0, 2), sample(5, 5, 1, 3)]
    images, targets = collate(samples)
    assert (images.dtype, images.shape) == (torch.uint8, (3, 3, 64, 96))
    mean = torch.tensor([124, 116, 104], dtype=torch.uint8)[:, None, None]
    for batched, (image, _) in zip(images, samples, strict=True):
        _, height, width = image.shape
        assert torch.equal(batched[:, :height, :width], image)
        assert (batched[:, height:] == mean).all()
        assert (batched[:, :, width:] == mean).all()
    assert_equal_batches([(images, targets)], [(images, [target for _, target in samples])])


def test_objects_of_a_batch_share_one_storage_per_key() -> None:
    _, targets = collate([sample(8, 8, n, n) for n in (2, 0, 3)])
    for key in ("boxes", "labels", "crowd"):
        assert len({target[key].untyped_storage().data_ptr() for target in targets}) == 1


def test_a_batch_without_objects_collates() -> None:
    _, targets = collate([sample(8, 8, 0, 1), sample(8, 8, 0, 2)])
    assert [target["boxes"].shape for target in targets] == [(0, 4), (0, 4)]


@pytest.mark.parametrize("size, padded", [((1, 32), (32, 32)), ((33, 64), (64, 64)), ((500, 667), (512, 672))])
def test_padded_size(size: tuple[int, int], padded: tuple[int, int]) -> None:
    assert padded_size(size) == padded


def train_batches(dataset: CocoDetection, count: int, **options: int) -> list:
    loader = train_loader(dataset, 8, **options)
    return list(islice(loader, count))


@pytest.mark.parametrize("name", ["ssd", "crop"])
def test_workers_change_nothing(write_coco, name: str) -> None:
    annotations = [(i, 1 + i % 2, [3 * i, i, 10 + i, 12]) for i in range(18)]
    root = write_coco(annotations, sizes=[(48, 64)] * 18)
    dataset = CocoDetection(root, "train", transform=train_transform(name, (64, 96)), seed=4)
    alone = train_batches(dataset, 6)  # two steps an epoch
    torch.manual_seed(99)
    assert_equal_batches(train_batches(dataset, 6, workers=2), alone)
    assert_equal_batches(train_batches(dataset, 2, workers=2, start_step=3), alone[3:5])
    assert not torch.equal(alone[0][0], alone[2][0])


def test_processes_and_micro_batches_split_the_same_batch(shared: Path) -> None:
    dataset = CocoDetection(shared / "data/bccd", "val", transform=train_transform("flip", (64, 64)))
    ((images, targets),) = train_batches(dataset, 1)
    parts = [train_batches(dataset, 2, rank=rank, world_size=2, accumulate=2) for rank in (0, 1)]
    pieces = [parts[rank][m] for m in (0, 1) for rank in (0, 1)]
    assert torch.equal(torch.cat([piece for piece, _ in pieces]), images)
    assert [t["image_id"] for _, piece in pieces for t in piece] == [t["image_id"] for t in targets]


def test_loading_leaves_the_global_random_numbers_alone(write_coco) -> None:
    dataset = CocoDetection(write_coco(sizes=[(40, 40)] * 4), "train", transform=train_transform("ssd", (32, 32)))
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    next(iter(train_loader(dataset, 2)))
    next(iter(train_loader(dataset, 2, workers=1)))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_sees_every_image_once(shared: Path, workers: int) -> None:
    dataset = CocoDetection(shared / "data/coco_tiny", "val2017", transform=eval_transform(100, 167))
    seen = []
    for rank in (0, 1):
        for images, targets in eval_loader(dataset, 8, workers=workers, rank=rank, world_size=2):
            for target in targets:
                assert padded_size(target["size"]) == tuple(images.shape[-2:])
                seen.append(target["image_id"])
    assert sorted(seen) == sorted(dataset.image_ids.tolist())
    assert len(set(seen)) == 80


def test_an_error_in_a_worker_is_still_one_line(write_coco) -> None:
    root = write_coco(sizes=[(48, 64)] * 4)
    for path in (root / "train").iterdir():
        path.write_bytes(b"not an image")
    dataset = CocoDetection(root, "train", transform=train_transform("flip", (32, 32)))
    with pytest.raises(DatasetError) as caught:
        next(iter(train_loader(dataset, 2, workers=1)))
    assert str(caught.value).startswith(f"{root / 'train'}")
    assert "\n" not in str(caught.value)


def test_workers_share_what_they_know_of_unreadable_images(write_coco) -> None:
    root = write_coco(sizes=[(48, 64)] * 4)
    (root / "train/002.png").write_bytes(b"not an image")
    transform = train_transform("flip", (32, 32))
    dataset = CocoDetection(root, "train", transform=transform, on_error="skip")
    batches = list(islice(train_loader(dataset, 4, workers=2), 2))
    assert all(len(targets) == 4 for _, targets in batches)
    assert dataset.unreadable == {30: "damaged"}


def test_workers_use_one_thread_and_leave_stopping_to_their_parent(write_coco) -> None:
    command = [sys.executable, Path(__file__).with_name("signalled_loader.py"), write_coco()]
    process = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(REPOSITORY)})
    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout) == {"threads": 1, "heard": True, "exit_code": 0}


@pytest.mark.slow
def test_spawned_workers_change_nothing_either(shared: Path) -> None:
    dataset = CocoDetection(shared / "data/bccd", "val", transform=train_transform("ssd", (64, 64)))
    loader = train_loader(dataset, 8, workers=1)
    loader.multiprocessing_context = "spawn"
    assert_equal_batches(list(islice(loader, 2)), train_batches(dataset, 2))


class Unsendable:
    """What cannot be handed over, as a batch for which /dev/shm has no room."""

    def __reduce__(self) -> tuple:
        raise RuntimeError("unable to allocate shared memory(shm)")


def test_a_worker_that_cannot_hand_over_a_batch_ends_in_place_of_losing_it(write_coco, capfd) -> None:
    ours = train_loader(CocoDetection(write_coco(), "train", transform=train_transform("flip", (32, 32))), 1, workers=1)
    loader = DataLoader([Unsendable()], batch_size=None, num_workers=1, worker_init_fn=ours.worker_init_fn)
    with pytest.raises(RuntimeError, match="exited unexpectedly") as caught:
        next(iter(loader))
    assert f"exit code {HANDED_NOTHING_OVER}" in f"{caught.value} {caught.value.__cause__}"
    assert "Traceback" not in capfd.readouterr().err


def test_a_blank_batch_has_the_form_of_any_other(write_coco) -> None:
    dataset = CocoDetection(write_coco(sizes=[(40, 64)] * 4), "train", transform=train_transform("flip", (64, 96)))
    images, targets = next(iter(train_loader(dataset, 2)))
    blank_images, blank_targets = blank_batch(2, (64, 96))
    assert (blank_images.shape, blank_images.dtype) == (images.shape, images.dtype)
    for target, blank in zip(targets, blank_targets, strict=True):
        assert target.keys() == blank.keys()
        for key in ("boxes", "labels", "crowd"):
            assert (blank[key].dtype, blank[key].shape) == (target[key].dtype, (0, *target[key].shape[1:]))
