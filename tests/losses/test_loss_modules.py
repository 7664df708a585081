"""Loss modules as people call them: shapes, labels, boxes, self-balance. Oracle: the functions on flat tensors."""

import copy
import doctest
import pickle
import sys

import pytest
import torch
from torch import Tensor

import losses
from losses import ALRPLoss, APLoss, RankSortLoss, SelfBalance, alrp_loss, ap_loss, rs_loss
from losses.matched import Matched
from losses.overlaps import paired_giou, paired_iou

K = 3
MODULES = [ALRPLoss, APLoss, RankSortLoss]


def make_batch(*leading: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits (…, K), labels (…), predicted boxes (…, 4) and true ones."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(*leading, K, generator=generator)
    labels = torch.randint(-1, 2 * K, leading, generator=generator)
    corner, size = torch.rand(2, *leading, 2, generator=generator)
    gt_boxes = torch.cat([corner, corner + size + 0.1], -1)
    pred_boxes = gt_boxes + 0.05 * torch.randn(gt_boxes.shape, generator=generator)
    return logits.requires_grad_(), labels, pred_boxes.requires_grad_(), gt_boxes


def one_hot(labels: Tensor) -> Tensor:
    """By a loop over the positions: row i has a 1 at its label, is -1 where that is negative, and else 0."""
    rows = [[-1] * K if label < 0 else [int(k == label) for k in range(K)] for label in labels.flatten().tolist()]
    return torch.tensor(rows).reshape(*labels.shape, K)


def positive(labels: Tensor) -> Tensor:
    return (labels >= 0) & (labels < K)


def by_functions(name: str, logits, labels, pred, gt) -> tuple[Tensor, Tensor]:
    entries, where = one_hot(labels).flatten(), positive(labels)
    pred, gt = pred[where], gt[where]
    giou = paired_giou(pred, gt)
    if name == "ALRPLoss":
        cls, loc = alrp_loss(logits.flatten(), entries, 1 - giou)
        return cls, 50 * loc
    if name == "APLoss":
        return ap_loss(logits.flatten(), entries), (1 - giou).mean()
    cls = sum(rs_loss(logits.flatten(), entries, paired_iou(pred, gt)))
    scores = logits.flatten()[entries == 1].sigmoid().detach()
    loc = (scores * (1 - giou)).sum() / scores.sum()
    return cls, loc * (cls / loc).detach()


def make(module: type, **keys) -> torch.nn.Module:
    return module(box_loss="giou", **keys) if module is APLoss else module(**keys)


@pytest.mark.parametrize("boxes_of", ["positives", "all positions"])
@pytest.mark.parametrize("targets", ["labels", "one-hot"])
@pytest.mark.parametrize("leading", [(40,), (2, 20), (2, 2, 3, 5)], ids=str)
@pytest.mark.parametrize("module", MODULES)
def test_equals_the_function_on_flat_tensors(module, leading, targets, boxes_of):
    logits, labels, pred, gt = batch = make_batch(*leading)
    given = labels if targets == "labels" else one_hot(labels).float()
    where = positive(labels) if boxes_of == "positives" else ...
    parts = make(module)(logits, given, pred[where], gt[where])
    wanted = by_functions(module.__name__, *batch)
    torch.testing.assert_close(torch.stack(parts), torch.stack(wanted), rtol=1e-6, atol=0)
    gradients, expected = (torch.autograd.grad(sum(p), (logits, pred)) for p in (parts, wanted))
    for ours, theirs in zip(gradients, expected, strict=True):
        assert theirs.any()
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-8)


def test_a_flat_vector_of_one_class_is_taken_as_by_the_functions():
    logits, targets = torch.tensor([3.0, 0.0, 2.0, -4.0]), torch.tensor([1, 1, 0, -1])
    errors, ious = torch.tensor([0.2, 0.8]), torch.tensor([0.5, 0.9])
    assert ALRPLoss(self_balance=False)(logits, targets, loc_errors=errors) == alrp_loss(logits, targets, errors)
    assert ALRPLoss(self_balance=False)(logits, targets, loc_errors=torch.tensor([0.2, 0.8, 9, 9])) == alrp_loss(
        logits, targets, errors
    )
    assert RankSortLoss()(logits, targets, ious=ious)[0] == sum(rs_loss(logits, targets, ious))
    assert APLoss(delta=0.5)(logits, targets) == (ap_loss(logits, targets, 0.5), 0)


def test_smooth_l1_compares_offsets():
    logits, targets = torch.zeros(2, 1), torch.tensor([0, 1])
    offsets, wanted = torch.tensor([[0.4, 0.0, 0.0, 2.0]]), torch.zeros(1, 4)
    assert APLoss()(logits, targets, offsets, wanted)[1].item() == pytest.approx((0.5 * 0.4**2 + 1.5) / 4)


def test_several_labels_of_a_position_are_given_one_hot():
    logits, pred, gt = make_batch(2)[0], torch.rand(2, 4).cumsum(1), torch.rand(2, 4).cumsum(1)
    entries = torch.tensor([[1, 1, 0], [0, 0, 1]])
    (cls, loc), errors = ALRPLoss()(logits, entries, pred, gt), (1 - paired_giou(pred, gt))[[0, 0, 1]]
    wanted = alrp_loss(logits.flatten(), entries.flatten(), errors)
    assert cls == wanted[0] and loc.item() == pytest.approx(50 * wanted[1].item())


@pytest.mark.parametrize("module", MODULES)
def test_no_positive_gives_zeros_with_zero_gradients(module):
    logits, labels, pred, gt = make_batch(2, 10)
    for where in (slice(None), positive(labels.clamp(max=-1))):
        parts = make(module)(logits, torch.full_like(labels, K), pred[where], gt[where])
        assert [part.item() for part in parts] == [0, 0]
        assert not any(g.any() for g in torch.autograd.grad(sum(parts), (logits, pred)))


@pytest.mark.parametrize("module", MODULES)
def test_bfloat16_and_autocast_rank_in_float32(module):
    logits, labels, pred, gt = make_batch(2, 30)
    low = logits.detach().bfloat16().requires_grad_()
    wanted = make(module)(low.float(), labels, pred.bfloat16().float(), gt)
    parts = make(module)(low, labels, pred.bfloat16(), gt)
    assert [p.dtype for p in parts] == [torch.float32] * 2 and parts == wanted
    assert torch.autograd.grad(sum(parts), low)[0].dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        assert make(module)(low, labels, pred.bfloat16(), gt) == wanted


@pytest.mark.parametrize("module", MODULES)
def test_breaks_the_graph_of_a_compiled_model_once(module):
    counters = torch._dynamo.utils.counters
    torch._dynamo.reset()
    counters.clear()
    criterion = make(module)
    compiled = torch.compile(lambda x, *rest: sum(criterion(2 * x, *rest)) / 2, backend="eager")
    logits, labels, pred, gt = make_batch(2, 10)
    value = compiled(logits, labels, pred, gt)
    assert sum(counters["graph_break"].values()) == 1
    wanted = sum(make(module)(2 * logits, labels, pred, gt)) / 2
    assert value == wanted
    assert torch.equal(*(torch.autograd.grad(v, logits)[0] for v in (value, wanted)))


class TestSelfBalance:
    def parts(self, seed: int) -> tuple[float, float]:
        logits, labels, pred, gt = make_batch(20, seed=seed)
        cls, loc = by_functions("ALRPLoss", logits, labels, pred, gt)
        return cls.item(), loc.item() / 50

    def test_advances_by_itself_after_every_period(self):
        criterion = ALRPLoss(balance_every=3)
        weights = []
        for seed in range(7):
            cls, loc = criterion(*make_batch(20, seed=seed))
            weights.append(loc.item() / self.parts(seed)[1])  # the one that this step was weighted by
        for first, last in ((0, 3), (3, 6)):
            cls, loc = (sum(v) for v in zip(*(self.parts(seed) for seed in range(first, last)), strict=True))
            assert weights[last] == pytest.approx((cls + loc) / loc, rel=1e-5)
        assert weights[:3] == pytest.approx([50] * 3) and weights[3:6] == pytest.approx([weights[3]] * 3)

    def test_without_a_period_it_waits_for_update(self):
        criterion = ALRPLoss()
        for seed in range(2):
            criterion(*make_batch(20, seed=seed))
        assert criterion.balance.weight == 50
        criterion.balance.update()
        cls, loc = (sum(v) for v in zip(*map(self.parts, range(2)), strict=True))
        assert criterion.balance.weight.item() == pytest.approx((cls + loc) / loc, rel=1e-5)

    def test_a_checkpoint_within_a_period_forgets_nothing(self):
        criterion, resumed = ALRPLoss(balance_every=3), ALRPLoss(balance_every=3)
        for seed in range(4):
            criterion(*make_batch(20, seed=seed))
        resumed.load_state_dict(pickle.loads(pickle.dumps(criterion.state_dict())))
        for each in (criterion, resumed):
            for seed in range(4, 7):
                last = each(*make_batch(20, seed=seed))
        assert criterion.state_dict() == resumed.state_dict() == copy.deepcopy(criterion).state_dict()
        assert criterion.balance.weight not in (50, self.parts(6)) and last[1] > 0

    def test_a_state_without_the_number_of_steps_loads(self):
        state = {key: value for key, value in SelfBalance(7.0).state_dict().items() if key != "steps"}
        balance = SelfBalance()
        balance.load_state_dict(state)
        assert balance.weight == 7 and balance.steps == 0

    def test_neither_validation_nor_the_detectors_entry_is_recorded(self):
        criterion = ALRPLoss(balance_every=1)
        logits, labels, pred, gt = make_batch(20)
        with torch.no_grad():
            criterion(logits, labels, pred, gt)
        criterion.eval()(logits, labels, pred, gt)
        where, entries = positive(labels), one_hot(labels).flatten()
        index = (entries == 1).nonzero().squeeze(1)
        matched = Matched(logits.flatten(), entries, index, pred[where], gt[where], pred[where], lambda: gt[where])
        of_matched = criterion.train().of_matched(matched)
        assert not criterion.balance.steps and criterion.balance.weight == 50
        assert of_matched["loss"] == sum(criterion(logits, labels, pred, gt))
        assert criterion.balance.weight != 50

    def test_backward_may_come_after_the_weight_has_changed(self):
        criterion, batches = ALRPLoss(balance_every=1), [make_batch(20, seed=seed) for seed in range(2)]
        totals = [sum(criterion(*batch)) for batch in batches]
        sum(totals).backward()  # as with accumulated gradients
        assert torch.equal(batches[0][2].grad, torch.autograd.grad(sum(ALRPLoss()(*batches[0])), batches[0][2])[0])

    def test_a_step_that_is_not_finite_leaves_no_trace(self):
        criterion, clean = ALRPLoss(balance_every=2), ALRPLoss(balance_every=1)
        logits, *rest = make_batch(20)
        assert criterion(logits * float("nan"), *rest)[0].isnan()
        for each in (criterion, clean):
            each(logits, *rest)
        assert criterion.balance.weight == clean.balance.weight != 50


@pytest.mark.parametrize(
    "targets, boxes, message",
    [
        (torch.zeros(4, dtype=torch.long), {}, "got (4,) for logits (5, 3)"),
        (torch.zeros(5), {}, "labels must be integers"),
        (torch.zeros(5, dtype=torch.bool), {}, "labels must be integers"),
        (torch.zeros(5, dtype=torch.long), {}, "needs pred_boxes and gt_boxes"),
        (torch.zeros(5, dtype=torch.long), {"pred_boxes": torch.zeros(5, 4)}, "needs pred_boxes and gt_boxes"),
        (
            torch.tensor([0, 3, 3, 3, 3]),
            {"pred_boxes": torch.zeros(2, 4), "gt_boxes": torch.zeros(2, 4)},
            "pred_boxes must have shape (1, 4) of the positives or (5, 4) of all positions, got (2, 4)",
        ),
        (torch.tensor([0, 3, 3, 3, 3]), {"loc_errors": torch.zeros(1, 1)}, "loc_errors must have shape (1,)"),
    ],
)
def test_input_that_does_not_fit_is_refused(targets, boxes, message):
    with pytest.raises(ValueError) as raised:
        ALRPLoss()(torch.zeros(5, 3), targets, **boxes)
    assert message in str(raised.value)


def test_the_example_of_the_module_prints_what_it_says():
    (test,) = doctest.DocTestFinder(recurse=False).find(ALRPLoss, globs=vars(sys.modules[ALRPLoss.__module__]))
    report: list[str] = []
    assert doctest.DocTestRunner(verbose=False).run(test, out=report.append).attempted and not report
    assert {module.__name__ for module in MODULES} <= set(losses.__all__)


@pytest.mark.parametrize(("module", "name"), [(ALRPLoss, "loc_errors"), (RankSortLoss, "ious")])
def test_boxes_beside_what_stands_for_them_are_refused(module, name):
    logits, labels, pred, gt = make_batch(20)
    with pytest.raises(ValueError, match=f"give boxes or {name}, not both"):
        module()(logits, labels, pred, gt, **{name: torch.ones(20)})


def test_errors_of_half_precision_add_up_in_float32():
    logits, errors = torch.zeros(70_000), torch.full((70_000,), 0.5, dtype=torch.float16)
    _, localisation = ALRPLoss(box_weights="equal", self_balance=False)(logits, torch.ones(70_000), loc_errors=errors)
    assert localisation.item() == 0.5


@pytest.mark.parametrize("module", MODULES)
def test_labels_of_every_integer_type(module):
    logits, labels, pred, gt = make_batch(20)
    labels = labels.clamp(min=0)
    expected = make(module)(logits, labels, pred, gt)
    for dtype in (torch.uint8, torch.uint16, torch.int16, torch.int32):
        assert make(module)(logits, labels.to(dtype), pred, gt) == expected


@pytest.mark.parametrize("module", MODULES)
def test_the_default_device_does_not_matter(module):
    logits, labels, pred, gt = make_batch(50)
    criterion = make(module)
    expected = copy.deepcopy(criterion)(logits, labels, pred, gt)
    with torch.device("meta"):  # stands for a GPU
        assert criterion(logits, labels, pred, gt) == expected


def test_boxes_of_few_positives_of_low_scores_count_in_full():
    logits, labels = torch.tensor([[-5.0], [-7.0], [0.0]]), torch.tensor([0, 0, 1])
    ious, scores = torch.tensor([0.5, 0.9]), torch.tensor([-5.0, -7.0]).sigmoid()
    loc = RankSortLoss(self_balance=False)(logits, labels, ious=ious)[1]
    assert loc.item() == pytest.approx(((scores * (1 - ious)).sum() / scores.sum()).item())
