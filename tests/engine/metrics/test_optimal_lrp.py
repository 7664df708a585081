"""The metric that takes batches: the values of COCO files, on one process and on two, with and without torchmetrics."""

import copy
import doctest
import importlib
import importlib.util
import json
import pickle
import sys

import pytest
import torch
from fork_server import run_processes
from operation_counter import OperationCounter
from optimal_lrp_worker import Images, batches, plain, work

from engine.metrics import evaluate_lrp, match_detections

KEYS = {"score": "scores", "iscrowd": "iscrowd", "area": "area"}  # name in COCO's format: ours
BASES = [
    "plain",
    pytest.param(
        "torchmetrics",
        marks=pytest.mark.skipif(importlib.util.find_spec("torchmetrics") is None, reason="no torchmetrics"),
    ),
]


def load(base: str):
    """The module, anew with or without torchmetrics."""
    module = importlib.import_module("engine.metrics.optimal_lrp")
    with pytest.MonkeyPatch.context() as patch:
        if base == "plain":
            patch.setitem(sys.modules, "torchmetrics", None)
        return importlib.reload(module)


@pytest.fixture(params=BASES)
def base(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def metric(base: str):
    return load(base).OptimalLRP()


def in_coco_files(preds: Images, targets: Images) -> tuple[dict, list[dict]]:
    """The same in COCO's format, through JSON."""
    labels = sorted({int(label) for image in (*preds, *targets) for label in image["labels"]})
    annotations, results = [], []
    for image_id, (pred, target) in enumerate(zip(preds, targets, strict=True)):
        for images, entries in ((target, annotations), (pred, results)):
            for i, (x1, y1, x2, y2) in enumerate(images["boxes"].double().tolist()):
                entry = {"image_id": image_id, "category_id": int(images["labels"][i])}
                more = {name: images[key][i].item() for name, key in KEYS.items() if key in images}
                entries.append(entry | {"bbox": [x1, y1, x2 - x1, y2 - y1]} | more)
    content = {
        "images": [{"id": i} for i in range(len(preds))],
        "categories": [{"id": label, "name": str(label)} for label in labels],
        "annotations": annotations,
    }
    return json.loads(json.dumps([content, results]))


def expected(preds: Images, targets: Images) -> dict:
    return evaluate_lrp(match_detections(*in_coco_files(preds, targets)))


def assert_equal(found: dict, wanted: dict) -> None:
    assert found.keys() == wanted.keys() and found["per_class"].keys() == wanted["per_class"].keys()
    for name, value in wanted.items():
        if name != "per_class":
            assert found[name] == pytest.approx(value, abs=1e-9), name
    for label, values in wanted["per_class"].items():
        assert found["per_class"][label] == pytest.approx(values, abs=1e-9), label


def test_equals_the_evaluation_of_files(metric):
    preds, targets = batches()
    for start in range(0, len(preds), 5):
        metric.update(preds[start : start + 5], targets[start : start + 5])
    result, wanted = plain(metric.compute()), expected(preds, targets)
    assert_equal(result, wanted)
    assert 0 < result["oLRP"] < 1 and min(result["oLRP_s"], result["oLRP_m"], result["oLRP_l"]) > 0
    assert result["per_class"][21] == dict.fromkeys(result["per_class"][21])  # absent, and no part of the means
    assert all(type(value) is torch.Tensor for name, value in metric.compute().items() if name != "per_class")


def test_reset_forgets_and_the_arguments_are_left_alone(metric):
    preds, targets = batches()
    before = copy.deepcopy((preds, targets))
    metric.update(preds, targets)
    metric.reset()
    metric.update(preds[:4], targets[:4])
    assert_equal(plain(metric.compute()), expected(preds[:4], targets[:4]))
    for images, old in zip((preds, targets), before, strict=True):
        for image, was in zip(images, old, strict=True):
            assert all(torch.equal(image[key], was[key]) for key in was)


def test_calling_it_gives_the_batch_alone_and_keeps_the_sum(metric):
    preds, targets = batches()
    metric.update(preds[:4], targets[:4])
    assert_equal(plain(metric(preds[4:], targets[4:])), expected(preds[4:], targets[4:]))
    assert_equal(plain(metric.compute()), expected(preds, targets))


def test_survives_pickling(base):
    metric = load(base).OptimalLRP()
    preds, targets = batches()
    metric.update(preds, targets)
    again = pickle.loads(pickle.dumps(metric))
    assert_equal(plain(again.compute()), plain(metric.compute()))


@pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")
def test_nothing_at_all(metric):
    assert metric.compute()["oLRP"] == -1 and metric.compute()["per_class"] == {}
    none = torch.zeros(0)
    metric.update([{"boxes": none, "scores": none, "labels": none}], [{"boxes": none, "labels": none}])
    assert metric.compute()["oLRP"] == -1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": torch.ones(2)}, r"preds\[1\]: boxes \(1, 4\), scores \(2,\), labels \(1,\); expected"),
        ({"boxes": torch.ones(1, 5)}, r"preds\[1\]: boxes \(1, 5\)"),
        ({"labels": torch.ones(1)}, r"preds\[1\]: labels are torch.float32; expected integers"),
    ],
)
def test_tensors_of_other_shapes_and_types_are_refused(metric, change, message):
    pred = {"boxes": torch.tensor([[0.0, 0, 1, 1]]), "scores": torch.ones(1), "labels": torch.tensor([1])}
    target = {"boxes": pred["boxes"], "labels": pred["labels"]}
    with pytest.raises(ValueError, match="2 preds for 1 targets"):
        metric.update([pred, pred], [target])
    with pytest.raises(ValueError, match=message):
        metric.update([pred, pred | change], [target, target])


@pytest.mark.parametrize(
    ("side", "key", "value", "message"),
    [
        (
            "preds",
            "boxes",
            [5.0, 0, 4, 1],
            r"box \[5.0, 0.0, 4.0, 1.0\], score .*boxes must be finite x1, y1",
        ),
        ("targets", "boxes", [0.0, 5, 1, 4], r"box \[0.0, 5.0, 1.0, 4.0\], label"),
        ("preds", "boxes", [0.0, 0, float("nan"), 1], r"box \[0.0, 0.0, nan, 1.0\]"),
        ("preds", "scores", float("inf"), "score inf, label .*scores finite"),
        ("preds", "labels", 2**53 + 1, "label 9007199254740992; .*labels below 2"),
        ("targets", "labels", -(2**53) - 1, "label -9007199254740992"),
    ],
)
def test_what_cannot_be_evaluated_is_named_and_its_batch_leaves_nothing(metric, side, key, value, message):
    preds, targets = batches()
    metric.update(preds[:4], targets[:4])
    wrong = copy.deepcopy({"preds": preds[4:9], "targets": targets[4:9]})
    wrong[side][3][key][1] = torch.tensor(value)  # of the eighth image, with two objects; the sixth has none
    with pytest.raises(ValueError, match=rf"^{side}\[3\], row 1: .*{message}"):
        metric.update(**wrong)
    assert_equal(plain(metric.compute()), expected(preds[:4], targets[:4]))


def test_a_batch_makes_the_device_wait_once(metric):
    preds, targets = batches()
    with OperationCounter() as counter:
        metric.update(preds, targets)
    del counter.counts["lift_fresh"]  # the numbers of the images' boxes, made on the CPU
    assert counter.waits.total() == 1, counter.waits


@pytest.fixture(params=BASES, scope="module")
def by_rank(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    folder = tmp_path_factory.mktemp("group")
    run_processes(work, (str(folder), request.param == "torchmetrics"), 2)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


def test_two_processes_give_the_metric_of_all_images(by_rank):
    preds, targets = batches()
    parts = {"one empty": slice(8), "all": slice(12), "synced": slice(12), "last four": slice(8, 12)}
    for found in by_rank:
        assert found["nothing"]["oLRP"] == -1
        for name, part in parts.items():
            assert_equal(found[name], expected(preds[part], targets[part]))


def test_joined_states_take_no_updates(base, tmp_path):
    metric = load(base).OptimalLRP()
    preds, targets = batches()
    metric.update(preds, targets)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/one", rank=0, world_size=1)
    try:
        metric.sync()
        with pytest.raises(Exception, match="sync"):
            metric.sync()
        with pytest.raises(Exception, match="sync"):
            metric(preds, targets)
        metric.unsync()
        with pytest.raises(Exception, match="sync"):
            metric.unsync()
    finally:
        torch.distributed.destroy_process_group()
    metric.update(preds[:2], targets[:2])
    assert_equal(plain(metric.compute()), expected(preds + preds[:2], targets + targets[:2]))


def test_the_documented_example_runs(base):
    failed, attempted = doctest.testmod(load(base))
    assert failed == 0 and attempted > 4
