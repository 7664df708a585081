import shutil
from itertools import islice
from pathlib import Path

import pytest
import torch

from data import CocoDetection, DatasetError, train_loader, train_transform
from data.cache import FileCache


def make_dataset(write_coco, **options: object) -> CocoDetection:
    annotations = [(i, 1 + i % 2, [3 * i, i, 10 + i, 12]) for i in range(10)]
    root = write_coco(annotations, sizes=[(48, 64)] * 10)
    return CocoDetection(root, "train", transform=train_transform("ssd", (64, 96)), seed=4, **options)


def first_batches(dataset: CocoDetection, workers: int, context: str | None = None) -> list[tuple]:
    loader = train_loader(dataset, 4, workers=workers)
    loader.multiprocessing_context = context
    return list(islice(loader, 5))  # of three epochs


def assert_equal_batches(found: list[tuple], expected: list[tuple]) -> None:
    for (images, targets), (expected_images, expected_targets) in zip(found, expected, strict=True):
        assert torch.equal(images, expected_images)
        for target, reference in zip(targets, expected_targets, strict=True):
            assert target["image_id"] == reference["image_id"]
            assert torch.equal(target["boxes"], reference["boxes"])


@pytest.mark.parametrize(
    ("workers", "context"), [(0, None), (2, None), pytest.param(1, "spawn", marks=pytest.mark.slow)]
)
def test_files_in_memory_give_the_same_batches_without_the_disk(write_coco, workers: int, context: str | None) -> None:
    dataset = make_dataset(write_coco)
    expected = first_batches(dataset, workers=0)
    assert dataset.hold_files() == sum(path.stat().st_size for path in dataset.folder.iterdir())
    shutil.rmtree(dataset.folder)
    assert_equal_batches(first_batches(dataset, workers, context), expected)


def test_files_hold_their_bytes_and_those_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a", "missing", "empty", "folder", "b")]
    paths[0].write_bytes(b"first")
    paths[2].touch()
    paths[3].mkdir()
    paths[4].write_bytes(bytes(range(256)))
    calls = []
    cache = FileCache(paths, on_file=lambda: calls.append(1))
    assert [None if cache[i] is None else bytes(cache[i].tolist()) for i in range(5)] == [
        b"first", None, None, None, bytes(range(256)),
    ]  # fmt: skip
    assert (cache.num_bytes, len(calls)) == (261, 5)


def test_unreadable_images_are_reported_as_without_the_cache(write_coco) -> None:
    dataset = make_dataset(write_coco, on_error="skip")
    (dataset.folder / "002.png").unlink()
    (dataset.folder / "003.png").write_bytes(b"not an image")
    dataset.hold_files()
    for index in range(len(dataset)):
        dataset[0, index]
    assert dataset.unreadable == {30: "missing", 40: "damaged"}


def test_a_cache_that_does_not_fit_is_refused_before_anything_is_read(write_coco) -> None:
    if not Path("/proc/meminfo").exists():
        pytest.skip("the system does not say how much memory is available")
    with pytest.raises(DatasetError, match=r"data\.cache: 1000000000 × .* GB of files do not fit into .*=false"):
        make_dataset(write_coco).hold_files(copies=10**9)
