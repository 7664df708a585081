"""What must not grow with the number of images: counted by operation, on any machine."""

import pytest
import torch
from operation_counter import OperationCounter

from detector.anchors import AnchorGenerator
from detector.assignment import assign_targets
from detector.matcher import ATSSMatcher, MaxIoUMatcher
from detector.postprocess import PostProcessor

LEVELS = AnchorGenerator((8, 16))([(8, 12), (4, 6)])
NUM_ANCHORS = sum(len(anchors) for anchors in LEVELS)
# Nodes of autograd that read a number from the device, though not where a counter of operations is looking on.
WAITING_BACKWARD = {"ProdBackward0", "ProdBackward1"}


@pytest.mark.parametrize("matcher", [MaxIoUMatcher(), ATSSMatcher()])
@pytest.mark.parametrize("ignore_crowd", [False, True])
def test_assignment_waits_once_and_runs_as_many_operations_for_every_batch(make_target, matcher, ignore_crowd):
    target = make_target((10, 10, 40, 40), (20, 5, 90, 60), labels=(1, 2), crowd=(False, True))
    counts = []
    for num_images in (1, 6):
        with OperationCounter() as operations:
            assign_targets(matcher, LEVELS, [target] * num_images, 3, ignore_crowd)
        assert operations.waits == {"nonzero": 1}
        padding = ("select", "copy_", "narrow", "slice", "zeros", "full", "pad_sequence")  # a copy for each image
        counts.append(sum(count for name, count in operations.counts.items() if name not in padding))
    assert counts[0] == counts[1]


def test_postprocessing_waits_as_often_for_every_batch():
    generator = torch.Generator().manual_seed(0)
    cls_logits = torch.randn(1, NUM_ANCHORS, 3, generator=generator)
    box_deltas = torch.randn(1, NUM_ANCHORS, 4, generator=generator)
    waiting = []
    for num_images in (1, 6):
        batch = cls_logits.repeat(num_images, 1, 1), box_deltas.repeat(num_images, 1, 1)
        with OperationCounter() as operations:
            found = PostProcessor(topk_candidates=100)(*batch, LEVELS, [(64, 96)] * num_images)
        assert len(found) == num_images and all(len(image["scores"]) > 10 for image in found)
        waiting.append(operations.waits.total())
    assert waiting[0] == waiting[1] and waiting[0] < 50


def test_matching_a_padded_batch_is_matching_its_images(make_target):
    boxes = [torch.tensor([[10.0, 10, 40, 40], [20, 5, 90, 60], [12, 10, 40, 44]]), torch.tensor([[0.0, 0, 30, 30]])]
    padded = torch.nn.utils.rnn.pad_sequence([*boxes, torch.zeros(0, 4)], batch_first=True)
    for matcher in (MaxIoUMatcher(), ATSSMatcher()):
        alone = [matcher(LEVELS, own) for own in (*boxes, torch.zeros(0, 4))]
        assert torch.equal(matcher(LEVELS, padded), torch.stack(alone))


@pytest.mark.parametrize("name", ["alrp", "rs", "ap", "focal"])
def test_a_loss_waits_for_its_number_of_positives_alone(make_detector, make_target, monkeypatch, name):
    monkeypatch.setattr("losses.ranking.logit_bins.LogitBins._build_table", lambda bins: None)  # for CPUs
    detector = make_detector(loss={"name": name})
    outputs, targets = detector.raw_outputs(torch.rand(2, 3, 64, 96)), [make_target((10, 10, 60, 60))] * 2
    with OperationCounter() as operations:
        loss = detector.objective(*outputs, targets)["loss"]
        loss.backward(retain_graph=True)
    assert operations.waits == {"nonzero": 1}
    assert not WAITING_BACKWARD & {node.name() for node in graph_of(loss)}


@pytest.mark.parametrize("family", ["retinanet", "fcos"])
def test_the_wait_for_the_positives_comes_before_the_network(make_detector, make_target, monkeypatch, family):
    monkeypatch.setattr("losses.ranking.logit_bins.LogitBins._build_table", lambda bins: None)  # for CPUs
    detector, waits = make_detector(family=family), []
    detector.backbone.register_forward_pre_hook(lambda *_: waits.append(dict(operations.waits)))
    with OperationCounter() as operations:
        detector(torch.rand(2, 3, 64, 96), [make_target((10, 10, 60, 60))] * 2)
    assert waits[0]["nonzero"] == operations.waits["nonzero"] == 1


def graph_of(value):
    """The nodes of autograd that a value comes from."""
    nodes, found = [value.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is not None and node not in found:
            found.add(node)
            nodes += [following for following, _ in node.next_functions]
    return found


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["alrp", "focal"])
def test_network_and_backward_never_wait_for_the_gpu(make_detector, make_target, name):
    detector = make_detector(loss={"name": name}).cuda()
    images = torch.rand(2, 3, 64, 96, device="cuda")
    targets = [{key: value.cuda() for key, value in make_target((10, 10, 60, 60)).items()} for _ in images]
    outputs = detector.raw_outputs(images)
    outputs[0].sum().backward()  # whatever waits at a first start
    try:
        torch.cuda.set_sync_debug_mode("error")
        cls_logits, box_deltas, anchors_per_level = detector.raw_outputs(images)
        torch.cuda.set_sync_debug_mode("default")
        losses = detector.objective(cls_logits, box_deltas, anchors_per_level, targets)
        torch.cuda.set_sync_debug_mode("error")
        losses["loss"].backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
