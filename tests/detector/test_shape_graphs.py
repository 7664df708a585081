"""A detector in evaluation as CUDA graphs: the same detections, or as before."""

import copy
import pickle
import warnings
from types import SimpleNamespace

import pytest
import torch
from operation_counter import count_launches
from torch import nn
from torch.utils._pytree import tree_map

from detector import build_detector
from detector.shape_graphs import MOST_GRAPHS, MOST_PIXELS, Captured, ShapeGraphs

TINY = {"backbone": "resnet18", "norm": "group", "frozen_stages": 0, "weights": None, "fpn_channels": 32}


class Graph:
    """As a graph does: writes what the function makes of what lies in one place to another."""

    def __init__(self, function, images):
        self.function, self.images, self.outputs, self.runs = function, images, function(images), 0

    def replay(self):
        self.runs += 1
        tree_map(lambda place, value: place.copy_(value), self.outputs, self.function(self.images))


def capture(graphs, function, images):
    graph = Graph(function, images.clone())
    return Captured(graph, graph.images, graph.outputs)


@pytest.fixture
def on_a_gpu(monkeypatch):
    monkeypatch.setattr(ShapeGraphs, "_capture", capture)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(cuda_stream=0))
    monkeypatch.setattr(ShapeGraphs, "fit", lambda graphs, images: graphs.allowed)


def runs_of(graphs: ShapeGraphs) -> list[int]:
    return [captured.graph.runs for captured in graphs._captured.values()]


@pytest.mark.parametrize("model", [TINY, {**TINY, "family": "fcos"}])
@torch.no_grad()
def test_detections_of_a_shape_that_comes_again_are_those_without_graphs(on_a_gpu, model):
    torch.manual_seed(0)
    detector = build_detector({"model": model | {"prior": 0.3, "score_thresh": 0.1}}, 3).eval()
    plain = copy.deepcopy(detector)
    plain.graphs.allowed = False
    for step, height in enumerate([64, 96, 64, 64, 96, 96, 64]):
        images = torch.rand(1, 3, height, 64)
        (found,), (expected,) = detector(images), plain(images)
        assert len(expected["boxes"]) > 0
        for name, values in expected.items():
            assert torch.equal(found[name], values), (step, name)
        with torch.no_grad():  # as training goes on between two evaluations
            for each in (detector, plain):
                each.head.cls_logits.bias += 0.1
    assert runs_of(detector.graphs) == [3, 2]  # the trial of each among them


def test_weights_that_lie_elsewhere_and_copies_have_graphs_of_their_own(on_a_gpu):
    layer, graphs, x = nn.Conv2d(3, 1, 1), ShapeGraphs(), torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        for _ in range(3):
            assert torch.equal(graphs.run(layer, x, layer), layer(x))
        assert runs_of(graphs) == [2]
        layer.weight.data = layer.weight.data * 2
        for _ in range(3):
            assert torch.equal(graphs.run(layer, x, layer), layer(x))
    assert runs_of(graphs) == [2]
    for twin in (copy.deepcopy(graphs), pickle.loads(pickle.dumps(graphs))):
        assert twin.allowed and runs_of(twin) == []
    assert not copy.deepcopy(ShapeGraphs(allowed=False)).allowed


def test_the_first_shapes_that_come_twice_keep_their_graphs(on_a_gpu):
    layer, graphs = nn.Conv2d(3, 1, 1), ShapeGraphs()
    with torch.no_grad():
        for _ in range(3):
            for width in range(1, MOST_GRAPHS + 3):
                images = torch.rand(1, 3, 1, width)
                assert torch.equal(graphs.run(layer, images, layer), layer(images))
    assert runs_of(graphs) == [2] * MOST_GRAPHS


def fails(graphs, function, images):
    raise RuntimeError("operation not permitted when stream is capturing")


def gives_other_numbers(graphs, function, images):
    return capture(graphs, lambda inputs: 1.1 * function(inputs), images)


@pytest.mark.parametrize(("wrong", "reason"), [(fails, "not permitted"), (gives_other_numbers, "other numbers")])
def test_where_graphs_do_not_work_one_line_says_so(on_a_gpu, monkeypatch, wrong, reason):
    monkeypatch.setattr(ShapeGraphs, "_capture", wrong)
    layer, graphs, x = nn.Conv2d(3, 1, 1), ShapeGraphs(), torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        graphs.run(layer, x, layer)
        with pytest.warns(UserWarning, match=f"evaluation runs without CUDA graphs: .*{reason}") as caught:
            assert torch.equal(graphs.run(layer, x, layer), layer(x))
    assert len(caught) == 1 and not graphs.fit(x)


def test_cpus_large_batches_and_gradients_are_left_alone():
    small = torch.empty(1, 3, 64, 64)
    with torch.no_grad():
        assert not ShapeGraphs().fit(small)
    assert not build_detector({"model": TINY, "run": {"graphs": False}}, 3).graphs.allowed


@pytest.mark.gpu
def test_on_a_gpu_detections_are_those_without_graphs_in_few_launches():
    torch.manual_seed(0)
    detector = build_detector({"model": TINY | {"norm": "frozen_batch", "prior": 0.3, "score_thresh": 0.1}}, 3)
    detector = detector.to("cuda", memory_format=torch.channels_last).eval()
    plain = copy.deepcopy(detector)
    plain.graphs.allowed = False
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("error")
        for height in [64, 96, 64, 64, 96, 96, 64]:
            images = torch.rand(1, 3, height, 64, device="cuda").contiguous(memory_format=torch.channels_last)
            (found,), (expected,) = detector(images), plain(images)
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
        assert len(detector.graphs._captured) == 2
        few, many = (count_launches(lambda each=each: each(images)) for each in (detector, plain))
        assert few < many / 2
        large = torch.empty(1, 3, MOST_PIXELS // 1024 + 1, 1024, device="cuda")
        assert detector.graphs.fit(images) and not detector.graphs.fit(large)
    assert not detector.graphs.fit(images)  # with gradients
