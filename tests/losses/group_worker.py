"""What each process of test_loss_group.py does; in a file of its own because spawned processes import it."""

from collections import Counter
from pathlib import Path

import torch
import torch.distributed as dist
from torch.utils._pytree import tree_leaves

from losses import alrp_loss, ap_loss, dr_loss, focal_loss, rs_loss, smooth_l1_loss
from losses.cross_entropy import cross_entropy_loss

COLLECTIVES = ("all_reduce", "all_gather", "all_gather_into_tensor", "all_gather_object", "broadcast", "barrier")


def make_case(name: str, world_size: int) -> dict:
    """The joined batch and how many entries of it each process holds."""
    generator = torch.Generator().manual_seed(len(name))
    sizes = {
        "even": [120] * world_size,
        "uneven": [7 + 150 * rank for rank in range(world_size)],
        "empty process": [0] + [200] * (world_size - 1),
        "empty last": [150] * (world_size - 1) + [0],
    }.get(name, [100] * world_size)
    total = sum(sizes)
    logits = torch.randn(total, generator=generator, dtype=torch.float64).float()
    targets = torch.multinomial(torch.tensor([0.1, 0.75, 0.15]), total, True, generator=generator) - 1
    last = total - sizes[-1]
    if name == "positives on one process":
        targets[:last].clamp_(max=0)
    if name == "negatives on one process":
        targets[last:] = targets[last:].clamp(max=0)
        targets[:last] = 1
    if name == "no positives":
        targets.clamp_(max=0)
    if name == "not finite on one process":
        logits[-1] = float("nan")
    if name == "not finite and no positives":
        targets.clamp_(max=0)
        logits[-1] = float("inf")
    if name == "ties":
        logits = (logits * 2).round() / 2
    if name == "far apart":
        logits[::3] *= 1e30
        logits[1::9] = 3e38
    positives = int((targets == 1).sum())
    return {
        "sizes": sizes,
        "logits": logits,
        "targets": targets,
        "loc_errors": torch.rand(positives, generator=generator),
        "boxes": torch.randn(positives, 4, generator=generator) * 2,
    }


CASES = (
    "even",
    "uneven",
    "empty process",
    "empty last",
    "positives on one process",
    "negatives on one process",
    "no positives",
    "ties",
    "far apart",
    "not finite on one process",
    "not finite and no positives",
)


def losses_and_gradients(logits, targets, loc_errors, boxes, group=None, counter=None) -> dict:
    """Every loss of the package, with its gradient and the collectives that it took."""
    inputs = {"logits": logits, "loc_errors": loc_errors, "boxes": boxes}
    inputs = {name: value.clone().requires_grad_() for name, value in inputs.items()}
    calls = {
        "alrp": lambda: alrp_loss(inputs["logits"], targets, inputs["loc_errors"], 0.7, group),
        "ap": lambda: (ap_loss(inputs["logits"], targets, 0.7, group),),
        "rs": lambda: rs_loss(inputs["logits"], targets, inputs["loc_errors"].detach(), 0.7, group),
        "focal": lambda: (focal_loss(inputs["logits"], targets, group=group),),
        "dr": lambda: (dr_loss(inputs["logits"], targets, group),),
        "ce": lambda: (cross_entropy_loss(inputs["logits"], targets, (targets == 1).nonzero().squeeze(1), 1, group),),
        "smooth_l1": lambda: (smooth_l1_loss(inputs["boxes"], torch.zeros_like(boxes), group=group),),
    }
    results = {}
    for name, call in calls.items():
        before = sum(counter.values()) if counter is not None else 0
        values = call()
        gradients = torch.autograd.grad(sum(values), tuple(inputs.values()), allow_unused=True)
        after = sum(counter.values()) if counter is not None else 0
        results[name] = {
            "values": torch.stack([value.detach() for value in values]),
            "gradients": dict(zip(inputs, gradients, strict=True)),
            "collectives": after - before,
        }
    return results


def as_strict_as_nccl(collective):
    """The collective, refusing the tensors that NCCL refuses and gloo takes: those that are not contiguous."""

    def call(*args, **kwargs):
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if torch.is_tensor(leaf)]
        assert tensors, "no tensor"
        assert all(tensor.is_contiguous() for tensor in tensors), "Tensors must be contiguous"
        return collective(*args, **kwargs)

    return call


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=3)
    counter = Counter()

    def counted(name, function):
        def call(*args, **kwargs):
            counter[name] += 1
            return function(*args, **kwargs)

        return call

    for name in COLLECTIVES:
        setattr(dist, name, counted(name, as_strict_as_nccl(getattr(dist, name))))
    results = {}
    for members in ([1, 2], [0, 1, 2]):  # every process makes every group
        group = dist.new_group(members)
        if rank in members:
            for name in CASES:
                case = own_part(make_case(name, len(members)), members.index(rank))
                for dtype in (torch.float64, torch.float32):
                    floats = {key: case[key].to(dtype) for key in ("logits", "loc_errors", "boxes")}
                    result = losses_and_gradients(targets=case["targets"], group=group, counter=counter, **floats)
                    results[len(members), name, dtype] = result
    torch.save(results, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def own_part(case: dict, rank: int) -> dict:
    start = sum(case["sizes"][:rank])
    own = slice(start, start + case["sizes"][rank])
    first, last = (int((case["targets"][:end] == 1).sum()) for end in (own.start, own.stop))
    parts = {"logits": own, "targets": own, "loc_errors": slice(first, last), "boxes": slice(first, last)}
    return {key: case[key][part] for key, part in parts.items()}
