"""Post-processing by the kernel finds what PyTorch's operators find, roundings and ties included."""

import warnings
from pathlib import Path

import pytest
import torch
from ahead_of_time import run_compiler
from hypothesis import given, settings
from hypothesis import strategies as st
from operation_counter import OperationCounter

from detector import on_gpu
from detector.boxes import BoxCoding
from detector.on_gpu import MAX_CANDIDATES, kernel_detections, usable
from detector.padded import MASKED, search_best
from detector.postprocess import PostProcessor

pytest.importorskip("triton")
SYNCHRONIZES = "called a synchronizing CUDA operation"  # PyTorch's warning; the first one is of the mode itself
DEVICES = [
    pytest.param("cpu", marks=pytest.mark.skipif(torch.cuda.is_available(), reason="the kernel is compiled")),
    pytest.param("cuda", marks=pytest.mark.gpu),
]


def random_boxes(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Corners and sides that are no round numbers, so that a sum rounded otherwise shows."""
    corners = torch.rand(*shape, 2, generator=generator) * 40
    return torch.cat([corners, corners + torch.rand(*shape, 2, generator=generator) * 60 + 1e-3], dim=-1)


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**31), count=st.integers(1, 70), num_kept=st.integers(1, 40))
def test_the_kernel_keeps_what_the_loop_keeps(device, seed, count, num_kept):
    from detector.nms_triton import search_best_kernel

    generator = torch.Generator().manual_seed(seed)
    boxes = random_boxes((2, count), generator)
    boxes[0, ::3] = boxes[0, 0].clone()  # the same box again, IoU 1
    boxes[1, ::4, 2:] = boxes[1, ::4, :2].clone()  # no area: IoU of 0 / 0
    scores = torch.randint(-1, 12, (2, count), generator=generator) / 11  # ties, and some that are no candidates
    labels = torch.randint(0, 3, (2, count), generator=generator)
    expected = search_best(boxes, scores, labels, 0.5, num_kept)
    found = search_best_kernel(boxes.to(device), scores.to(device), labels.to(device), 0.5, num_kept)
    assert torch.equal(found.cpu(), expected)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("score_thresh", [0.0, 0.7, 1.0])
def test_finds_what_the_operators_find(device, score_thresh):
    generator = torch.Generator().manual_seed(1)
    postprocess = PostProcessor(0.9, 10, 0.5, 20, BoxCoding())
    references = [random_boxes((count,), generator) for count in (40, 12, 1)]
    scores, box_deltas = torch.rand(3, 53, 3, generator=generator), torch.randn(3, 53, 4, generator=generator) / 3
    scores[2] = MASKED
    sizes = [(60, 90), (33, 20), (50, 50)]
    expected = postprocess.of_scores(scores, box_deltas, references, sizes, score_thresh)
    on_device = (scores.to(device), box_deltas.to(device), [level.to(device) for level in references])
    found = kernel_detections(postprocess, *on_device, sizes, score_thresh)
    assert [len(image["labels"]) > 5 for image in expected] == [score_thresh < 1, score_thresh < 1, False]
    for image, one in zip(found, expected, strict=True):
        for name, values in one.items():
            assert torch.equal(image[name].cpu(), values) or (
                device == "cuda" and name == "boxes" and torch.allclose(image[name].cpu(), values, atol=1e-4)
            )


def test_other_devices_types_and_sizes_are_left_to_the_operators():
    assert not usable(torch.rand(1, 8, 2), 100)
    assert not usable(torch.empty(1, 8, 2, device="meta"), MAX_CANDIDATES + 1)


def test_a_kernel_that_keeps_other_boxes_is_not_used(monkeypatch):
    monkeypatch.setattr(on_gpu, "triton_works", lambda device: True)
    kernel = pytest.importorskip("detector.nms_triton")
    for wrong in (lambda *arguments: search_best(*arguments).flip(1), lambda *arguments: 1 / 0):
        monkeypatch.setattr(kernel, "search_best_kernel", wrong)
        with pytest.warns(UserWarning, match="NMS takes slower operators"):
            assert not on_gpu._kernel_works.__wrapped__(torch.device("cpu"))
    monkeypatch.setattr(kernel, "search_best_kernel", search_best)
    assert on_gpu._kernel_works.__wrapped__(torch.device("cpu"))
    with torch.device("meta"):  # whatever device is the default
        assert on_gpu._kernel_works.__wrapped__(torch.device("cpu"))


def random_outputs(num_images: int, device: str):
    generator = torch.Generator().manual_seed(2)
    references = [random_boxes((count,), generator).to(device) for count in (40, 12)]
    scores, box_deltas = torch.rand(1, 52, 3, generator=generator), torch.randn(1, 52, 4, generator=generator)
    batch = (outputs.repeat(num_images, 1, 1).to(device) for outputs in (scores, box_deltas))
    return *batch, references, [(100, 100)] * num_images, 0.05


def test_it_runs_the_same_operations_for_every_batch_and_none_whose_result_has_a_size_of_its_own():
    counts = []
    for num_images in (2, 6):
        arguments = random_outputs(num_images, "cpu")
        with OperationCounter() as operations:
            kernel_detections(PostProcessor(), *arguments)
        # numbers of the host: the threshold of IoU, rounded, and the sizes of the images, which are copied
        assert operations.waits == {"_local_scalar_dense": 2, "lift_fresh": 2}
        views = ("slice", "select", "unbind", "empty", "set_")  # the last two are the interpreter's
        counts.append({name: count for name, count in operations.counts.items() if name not in views})
    assert counts[0] == counts[1] and sum(counts[0].values()) < 120


@pytest.mark.gpu
def test_the_host_waits_once_for_a_batch():
    arguments = random_outputs(4, "cuda")
    kernel_detections(PostProcessor(), *arguments)  # compiles
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            kernel_detections(PostProcessor(), *arguments)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waits = [str(warning.message) for warning in caught if SYNCHRONIZES in str(warning.message)]
    assert len(waits) == 1, waits


@pytest.mark.slow
def test_the_kernel_compiles_for_a_gpu(tmp_path):
    """For the five levels of 1000 candidates of the shipped configurations."""
    lines = run_compiler(Path(__file__).with_name("compile_nms.py"), tmp_path)
    assert [line[0] for line in lines] == ["sm_80", "sm_90"]
    for _, registers, spilled, fused in lines:
        assert int(registers) <= 64  # 1024 threads share what a multiprocessor has
        assert int(spilled) <= 128 and fused == "False"
