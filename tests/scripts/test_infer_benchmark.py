"""scripts/benchmark.py infer at the smallest size: that both sides see the same, not how fast they are."""

import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("torchvision")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from benchmarks import infer
from benchmarks.same_detections import PASSES, find_in_true_float32, share_of_same

CPU = torch.device("cpu")
make_models = infer.make_models


def models_that_detect(*arguments):
    """On few pixels no random score passes the usual threshold."""
    peer, own = make_models(*arguments)
    peer.score_thresh = own.postprocess.score_thresh = 0.02
    return peer, own


def test_sizes_are_those_of_coco_within_the_limits():
    sizes = infer.coco_sizes(200, 500, 833)
    assert len(sizes) == 200 and sizes.count((667, 500)) == 2 * 14 and sizes.count((500, 749)) == 2 * 31
    for height, width in sizes:
        assert min(height, width) == 500 and max(height, width) <= 833
    assert {height > width for height, width in sizes} == {True, False}


def test_a_batch_is_padded_to_what_holds_all_of_its_images():
    batch = infer.make_batch([(40, 70), (64, 30)], CPU)
    assert batch.images.shape == (2, 3, 64, 96) and batch.sizes == [(40, 70), (64, 30)]
    assert batch.images[0, :, :40, :70].mean() > 0.4
    assert batch.images[0, :, 40:].abs().sum() == batch.images[0, :, :, 70:].abs().sum() == 0


@pytest.mark.slow
def test_both_detectors_find_the_same(monkeypatch):
    monkeypatch.setattr(infer, "PASSES", 1)
    monkeypatch.setattr(infer, "make_models", models_that_detect)
    rows = infer.benchmark_infer((64, 96), 2, 3, CPU, eager=True)
    assert [(row["precision"], row["model"]) for row in rows] == [
        ("float32", "torchvision"),
        ("float32", "ours"),
        ("float32", "ours, evaluation.winograd"),
        ("bfloat16", "torchvision"),
        ("bfloat16", "ours"),
    ]
    for row in rows:
        assert row["detections per image"] > 10 and row["ms per image"] > 0 and row["ms with first use"] > 0
    assert [row["same"] for row in rows[:3]] == [1, 1, 1]


def test_what_differs_is_not_the_same():
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 30.0, 30.0], [5.0, 5.0, 9.0, 9.0], [1.0, 1.0, 2.0, 2.0]])
    found = {"boxes": boxes, "scores": torch.full((4,), 0.5), "labels": torch.arange(4)}
    other = {name: value.clone() for name, value in found.items()}
    other["boxes"][0, 2] = 10.2
    other["scores"][1] = 0.502
    other["labels"][2] = 7
    assert share_of_same([found], [found]) == 1
    assert share_of_same([found], [other]) == 0.25
    assert share_of_same([found], [{name: value[:0] for name, value in found.items()}]) == 0


def test_the_first_images_are_compared_in_true_float32_and_the_setting_comes_back(monkeypatch):
    monkeypatch.setattr(infer, "COMPARED_IMAGES", 3)
    batches = [infer.make_batch([size] * 2, CPU) for size in ((64, 96), (96, 64), (64, 64))]
    assert infer.first_images(batches) == batches[:1] and infer.first_images(batches[1:2]) == batches[1:2]
    monkeypatch.setattr(infer, "COMPARED_IMAGES", 4)
    peer, own = models_that_detect((64, 96), "focal", CPU)
    infer.silence_unused_columns(peer)
    peer.transform = infer.PaddedInput(CPU)
    seen = []

    def watched(name, run):
        def detect(batch):
            seen.append((name, batch.images.shape, *allowed()))
            return run(batch)

        return detect

    def allowed():
        return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32

    before = allowed()
    cases = infer.make_cases(peer.eval(), own.eval(), "float32")
    found = find_in_true_float32({name: watched(name, run) for name, run in cases.items()}, infer.first_images(batches))
    assert allowed() == before and before[0]  # PyTorch's default, which the timed passes keep
    shapes = [batch.images.shape for batch in batches[:2]]
    assert seen == [(name, shape, False, False) for name in cases for shape in shapes] * PASSES
    assert [len(each) for each in found.values()] == [4, 4] and len(found["ours"][0]["scores"]) > 10
    assert infer.shares_of_same(found) == {"torchvision": 1, "ours": 1}


@pytest.mark.gpu
def test_both_detectors_find_the_same_on_a_gpu(monkeypatch):
    monkeypatch.setattr(infer, "PASSES", 1)
    monkeypatch.setattr(infer, "make_models", models_that_detect)
    rows = infer.benchmark_infer((64, 96), 2, 3, torch.device("cuda"), eager=True)
    assert [(row["precision"], row["model"]) for row in rows[:2]] == [("float32", "torchvision"), ("float32", "ours")]
    assert all(row["same"] > 0.999 for row in rows[:2]) and rows[0]["detections per image"] > 10


def test_nothing_is_detected_in_columns_that_coco_does_not_use():
    peer, _ = models_that_detect((64, 64), "focal", CPU)
    infer.silence_unused_columns(peer)
    peer.transform = infer.PaddedInput(CPU)
    (found,) = infer.detect_peer(peer.eval(), "float32", infer.make_batch([(64, 64)], CPU))
    assert len(found["labels"]) > 4 and set(found["labels"].tolist()) <= set(infer.COCO_IDS)
