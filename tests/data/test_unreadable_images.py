"""CocoDetection where an image cannot be read: an error that names it, or another image in its place."""

import logging
from pathlib import Path

import pytest
import torch
from PIL import Image

from data import CocoDetection, DatasetError, eval_transform


def break_image(root: Path, index: int) -> None:
    path = root / f"train/{index:03}.png"
    path.write_bytes(path.read_bytes()[:200])


def test_an_unreadable_image_stops_with_its_name_id_and_remedy(write_coco) -> None:
    root = write_coco(sizes=[(48, 64)] * 2)
    break_image(root, 1)
    dataset = CocoDetection(root, "train")
    dataset[0]
    with pytest.raises(DatasetError) as caught:
        dataset[0, 1]
    message = str(caught.value)
    assert message.startswith(f"{root / 'train/001.png'}: unreadable image (")
    assert f"image id 20 in {dataset.annotation_file}" in message
    assert message.endswith("data.on_error=skip")
    assert "\n" not in message


def test_skipping_replaces_training_images_by_the_next(write_coco, caplog: pytest.LogCaptureFixture) -> None:
    root = write_coco([(0, 1, [1, 2, 3, 4])], sizes=[(48, 64)] * 4)
    for index in (2, 3):
        break_image(root, index)
    dataset = CocoDetection(root, "train", on_error="skip")
    assert [dataset[7, i][1]["image_id"] for i in range(4)] == [10, 20, 10, 10]
    assert dataset[7, 2][1]["boxes"].tolist() == [[1, 2, 4, 6]]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "002.png" in record.getMessage()
    assert dataset.unreadable == {30: "damaged", 40: "damaged"}


def test_skipping_warns_once_per_kind(write_coco, caplog: pytest.LogCaptureFixture, monkeypatch) -> None:
    root = write_coco(sizes=[(48, 64)] * 8)
    for index in (0, 1):
        break_image(root, index)
        (root / f"train/{2 + index:03}.png").write_bytes(b"")
        (root / f"train/{4 + index:03}.png").unlink()
    Image.new("RGB", (70, 48)).save(root / "train/006.png")
    dataset = CocoDetection(root, "train", on_error="skip")
    for epoch in range(2):
        assert dataset[epoch, 0][1]["image_id"] == 80
    kinds = ("damaged", "empty", "missing", "of another size than annotated")
    assert list(dataset.unreadable.values()) == [kind for kind in kinds[:3] for _ in range(2)] + [kinds[3]]
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 4
    assert all(any(f"that is {kind} will be" in text for text in messages) for kind in kinds)


def test_a_decompression_bomb_is_not_opened(write_coco, monkeypatch) -> None:
    root = write_coco(sizes=[(48, 64)])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 48 * 64 // 3)  # Pillow refuses twice as many
    with pytest.raises(DatasetError, match=r"000\.png: unreadable image \(.*decompression bomb.*image id 10"):
        CocoDetection(root, "train")[0]
    dataset = CocoDetection(root, "train", on_error="skip")
    assert dataset[0][1]["image_id"] == 10
    assert dataset.unreadable == {10: "oversized"}


def test_skipping_in_evaluation_gives_a_blank_image_of_the_same_id(write_coco) -> None:
    root = write_coco([(1, 1, [1, 2, 3, 4])], sizes=[(48, 64), (40, 30)])
    (root / "train/001.png").unlink()
    dataset = CocoDetection(root, "train", on_error="skip", transform=eval_transform(size=(80, 60)))
    image, target = dataset[1]
    assert (image == torch.tensor([124, 116, 104])[:, None, None]).all()
    assert image.shape == (3, 80, 60)
    assert (target["image_id"], target["orig_size"]) == (20, (40, 30))
    assert [target[key].shape for key in ("boxes", "labels", "crowd")] == [(0, 4), (0,), (0,)]


def test_skipping_every_image_is_an_error(write_coco) -> None:
    root = write_coco(sizes=[(48, 64)] * 2)
    for index in range(2):
        break_image(root, index)
    with pytest.raises(DatasetError, match="not one image"):
        CocoDetection(root, "train", on_error="skip")[0, 0]
