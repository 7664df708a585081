"""The network in training as CUDA graphs: the same training, or as before."""

import warnings
from collections.abc import Callable

import pytest
import torch
import torch.distributed as dist
from graph_stand_ins import GraphsOnACpu, graphs_of_zeros, graphs_that_write_no_statistics, no_graphs
from operation_counter import count_launches
from torch.utils._python_dispatch import TorchDispatchMode

from data.targets import BatchTargets
from detector import build_detector
from detector.backbones import epilogue
from detector.backbones.norm import running_statistics
from engine.run.config import load_config
from engine.run.distributed import Processes
from engine.run.schedule import build_schedule
from engine.training import network_graphs, train_step
from engine.training.network_graphs import can_be_captured
from engine.training.train_step import MicroBatch, TrainStep

ALONE = Processes(0, 1, torch.device("cpu"))
GPU = torch.device("cuda", 0)


def batches(number: int, height: int = 64) -> list[MicroBatch]:
    generator = torch.Generator().manual_seed(height)
    target = {
        "boxes": torch.tensor([[8.0, 8, 40, 40], [20, 30, 60, 60]]),
        "labels": torch.tensor([1, 2]),
        "crowd": torch.tensor([False, False]),
    }
    shape = (2, 3, height, 64)
    return [
        (torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator), BatchTargets.join([target] * 2))
        for _ in range(number)
    ]


@pytest.fixture
def make_step(write_config, tmp_path):
    def make(*overrides: str, processes: Processes = ALONE) -> TrainStep:
        images = 2 * processes.world_size * (1 + ("data.accumulate=2" in overrides))
        config = load_config(write_config(tmp_path), [f"data.batch_size={images}", *overrides])
        return TrainStep(config, processes, build_schedule(config, 12), 3, load_weights=False)

    return make


@pytest.fixture
def captured(monkeypatch):
    """Makes steps from here on believe that this is a GPU, whose graphs are the given function."""

    def use(make_graphed_callables: Callable) -> None:
        monkeypatch.setattr(torch.cuda, "make_graphed_callables", make_graphed_callables)
        monkeypatch.setattr(
            train_step,
            "can_be_captured",
            lambda detector, config, _: can_be_captured(detector, config, torch.device("cuda")),
        )

    return use


ALL = (
    *("data.accumulate=2", "optimizer.clip_grad_norm=0.01", "optimizer.ema_decay=0.9"),
    *("run.diagnose=true", "loss.name=focal"),
)


BATCH_NORM = ("model.norm=batch",)  # whose statistics the capture must leave as they were


@pytest.mark.parametrize(
    ("processes", "overrides"),
    [
        *((1, ()), (1, ALL), (1, BATCH_NORM), (2, (*BATCH_NORM, *ALL))),
        (1, (*BATCH_NORM, "model.frozen_stages=5")),  # none of the backbone's statistics moves
        pytest.param(2, ALL, marks=pytest.mark.slow),
    ],
)
def test_a_training_on_graphs_takes_the_same_steps(make_step, captured, tmp_path, processes, overrides):
    if processes > 1:  # says that it is one of two; the group has one member, so that it need not be started
        dist.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    place = Processes(0, processes, torch.device("cpu"))
    plain = make_step(*overrides, processes=place)
    captured(graphs := GraphsOnACpu())
    graphed = make_step(*overrides, processes=place)
    try:
        given = batches(4)
        for first in (0, 2):
            taken = given[first : first + plain.config.data.accumulate]
            assert graphed(taken) == plain(taken)
        assert graphed.captured and graphs.passes == 1 + 2 * graphed.config.data.accumulate
        for name, value in plain.state_dict()["model"].items():
            assert torch.equal(value, graphed.state_dict()["model"][name]), name
    finally:
        if processes > 1:
            dist.destroy_process_group()


FCOS = ("model.family=fcos", "model.head_convs=1")


@pytest.mark.parametrize(
    "family",
    [
        pytest.param((*FCOS, "loss.name=focal"), marks=pytest.mark.slow),
        (*FCOS, "loss.name=alrp"),  # without centreness
        ("model.family=faster_rcnn", "loss.name=alrp", "model.fc_channels=32"),  # whose maps serve two heads
        pytest.param(("model.family=centernet", "optimizer.name=adam", "optimizer.lr=0.001"), marks=pytest.mark.slow),
    ],
)
def test_every_family_trains_on_graphs(make_step, captured, family):
    plain = make_step(*family)
    captured(graphs := GraphsOnACpu())
    graphed = make_step(*family)
    for batch in batches(2):
        assert graphed([batch]) == plain([batch])
    assert graphs.passes == 1 + 2


@pytest.mark.parametrize(
    ("graphs", "reason"),
    [
        (no_graphs, "operation not permitted when stream"),
        (graphs_of_zeros, "other numbers"),
        (graphs_that_write_no_statistics, "other numbers"),
    ],
)
def test_where_graphs_do_not_work_one_line_says_so_and_training_goes_on(make_step, captured, graphs, reason):
    overrides = "data.accumulate=2", "model.norm=batch"
    plain = make_step(*overrides)
    captured(graphs)
    with pytest.warns(UserWarning, match=f"runs without CUDA graphs: .*{reason}") as caught:
        step = make_step(*overrides)
    assert len(caught) == 1 and not step.captured
    for taken in batches(4)[:2], batches(4)[2:]:
        assert step(taken) == plain(taken)


def test_a_batch_of_another_shape_and_evaluation_run_as_before(make_step, captured):
    plain = make_step()
    captured(graphs := GraphsOnACpu())
    graphed = make_step()
    for batch in [*batches(1), *batches(1, height=96), *batches(1)]:
        assert graphed([batch]) == plain([batch])
    assert graphs.passes == 1 + 2
    images = batches(1)[0][0] / 255
    found = [step.detector.eval()(images) for step in (graphed, plain)]
    assert torch.equal(found[0][0]["boxes"], found[1][0]["boxes"]) and len(found[0][0]["boxes"])


def test_compiled_kernels_are_captured_and_evaluate_too(make_step, captured, monkeypatch):
    calls = []

    def compile_function(function):
        return lambda inputs: calls.append(torch.is_grad_enabled()) or function(inputs)

    monkeypatch.setattr(torch, "compile", compile_function)
    monkeypatch.setattr(train_step.shutil, "which", lambda name: name)
    plain = make_step()
    captured(GraphsOnACpu())
    step = make_step("run.compile=true")
    (batch,) = batches(1)
    assert step([batch]) == plain([batch])
    assert step.captured and len(calls) > 0
    calls.clear()
    with torch.no_grad():
        step.detector.eval()(batch[0] / 255)
    assert calls == [False] * 2  # backbone with pyramid, and head


class LargestFloat32(TorchDispatchMode):
    """The most float32 numbers that any operator gives."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.dtype == torch.float32:
            self.numbers = max(self.numbers, result.numel())
        return result


def test_graphs_and_operators_are_compared_without_copies_of_all_logits_in_float32(monkeypatch):
    monkeypatch.setattr(network_graphs, "COMPARED", 1000)
    generator = torch.Generator().manual_seed(0)
    expected = [torch.randn(shape, generator=generator).bfloat16() for shape in ((2, 700, 3), (1000,), (), (7, 0))]
    values = [each + 0.02 for each in expected]
    joined, wanted = (torch.cat([each.double().flatten() for each in part]) for part in (values, expected))
    with LargestFloat32() as largest:
        distance = network_graphs._distance(values, expected)
    assert distance == pytest.approx(((joined - wanted).norm() / wanted.norm()).item(), rel=1e-5)
    assert largest.numbers == 1000
    values[1][500] = torch.nan
    assert not network_graphs._distance(values, expected) < network_graphs.MOST_DIFFERENT


@pytest.mark.parametrize(
    ("override", "device", "expected"),
    [
        ("run.graphs=true", "cuda", True),
        ("model.norm=frozen_batch", "cuda", True),
        ("model.norm=batch", "cuda", True),
        ("model.norm=sync_batch", "cuda", False),
        ("data.short_side=[64, 96]", "cuda", False),
        ("run.graphs=false", "cuda", False),
        ("run.graphs=true", "cpu", False),
    ],
)
def test_what_can_be_captured(write_config, tmp_path, override, device, expected):
    more = ["data.long_side=128"] if "short_side" in override else []
    config = load_config(write_config(tmp_path), [override, *more])
    detector = build_detector(config, 3).train()
    assert can_be_captured(detector, config, torch.device(device)) is expected


@pytest.mark.gpu
@pytest.mark.parametrize("norm", ["group", "batch"])
def test_graphs_on_a_gpu_take_the_steps_of_operators_in_few_launches(make_step, norm):
    place = Processes(0, 1, GPU)
    overrides = (
        f"model.norm={norm}",
        "run.device=cuda",
        "run.log_every=100",
        "run.precision=float32",
        "optimizer.lr=0.001",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        graphed = make_step(*overrides, processes=place)
        plain = make_step(*overrides, "run.graphs=false", processes=place)
        for batch in batches(10):
            loss, expected = graphed([batch])[0]["loss"], plain([batch])[0]["loss"]
            assert loss == pytest.approx(expected, rel=1e-4)
    assert graphed.captured and not plain.captured
    for found, wanted in zip(*(running_statistics(step.detector) for step in (graphed, plain)), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)
    launches = [count_launches(lambda step=step: step(batches(1))) for step in (graphed, plain)]
    assert launches[0] < launches[1] / 2, launches


@pytest.mark.gpu
def test_gradients_in_bfloat16_are_as_near_to_float32_as_by_operators(make_step, monkeypatch):
    def gradients(precision: str, fast: bool) -> dict[str, torch.Tensor]:
        monkeypatch.setattr(epilogue, "_kernels_work", lambda device: fast)
        overrides = ["model.norm=frozen_batch", "optimizer.clip_grad_norm=null", f"run.precision={precision}"]
        step = make_step(*overrides, f"run.device={GPU.type}", f"run.graphs={fast}", processes=Processes(0, 1, GPU))
        step(batches(1))
        assert step.captured is fast
        return {name: p.grad.double() for name, p in step.detector.named_parameters() if p.requires_grad}

    exact = gradients("float32", fast=False)
    errors = []
    for fast in (True, False):
        found = gradients("bfloat16", fast)
        each = {name: (found[name] - wanted).norm() / wanted.norm() for name, wanted in exact.items() if wanted.any()}
        joined = [torch.cat([part[name].flatten() for name in exact]) for part in (found, exact)]
        errors.append(((joined[0] - joined[1]).norm() / joined[1].norm(), max(each.values())))
    (ours, ours_worst), (plain, plain_worst) = errors
    assert 0 < ours <= 1.2 * plain and ours_worst <= 1.2 * plain_worst, errors
