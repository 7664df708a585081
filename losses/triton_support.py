"""Whether the losses' Triton kernels can take over from PyTorch's operators."""

import warnings
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

_works: dict[tuple[torch.device, torch.dtype], bool] = {}  # whether kernels were right where they were tried


def usable(logits: Tensor) -> bool:
    """Whether kernels can run on the logits: on a GPU where Triton works, unless repeatable results were asked for.

    The kernels add float64 numbers in the order in which the GPU gets to them.
    """
    if not logits.is_cuda or torch.are_deterministic_algorithms_enabled() or not triton_works(logits.device):
        return False
    case = logits.device, logits.dtype
    if case not in _works:
        _works[case] = True  # what is tried asks this too
        _works[case] = kernels_are_right(*case)
    return _works[case]


def as_losses_read(logits: Tensor) -> Tensor:
    """The logits in a type that operators can compute with, float32 at least; kernels read all types as they are."""
    return logits if logits.element_size() >= 4 or usable(logits) else logits.float()


def ceil_div(size: int, each: int) -> int:
    """How many programs take so many entries each; Triton's own function takes ten times as long on the host."""
    return -(-size // each)


def power_of_two(size: int) -> int:
    """The smallest that is not below the size, which is 1 at least."""
    return 1 << (size - 1).bit_length()


@cache
def triton_works(device: torch.device) -> bool:
    """Tries: Triton may be missing, find no C compiler for its launcher, or not know the GPU."""

    def find_one() -> bool:
        from .ranking.triton_passes import TritonPasses

        return len(TritonPasses().find_entries(torch.ones(1, device=device))) == 1

    return passes_trial(
        "Triton does not work here, slower operators take its place", find_one, "it does not find a positive"
    )


def passes_trial(consequence: str, trial: Callable[[], bool], difference: str) -> bool:
    """Whether the trial is true; if not, one warning says the consequence, and why: its error, or the difference."""
    try:
        passed, reason = trial(), difference
    except Exception as error:
        passed, reason = False, str(error).strip().split("\n")[0]
    if not passed:
        warnings.warn(f"{consequence}: {reason}", stacklevel=3)
    return passed


def agree(values: Tensor, expected: Tensor, tolerance: float) -> bool:
    """Whether no value differs from the expected one by more than the tolerance, relative to the largest of these."""
    expected = expected.double()
    return bool((values.double() - expected).abs().max() <= tolerance * expected.abs().max())


def kernels_are_right(device: torch.device, dtype: torch.dtype) -> bool:
    """Tries the losses' kernels against operators, as no other part of a training would notice a wrong one."""
    cpu = torch.device("cpu")  # named, as another may be the default
    generator = torch.Generator(cpu).manual_seed(0)  # of its own: the run draws as it would have drawn
    logits = (3 * torch.randn(5000, generator=generator, device=cpu)).to(dtype)
    targets = torch.zeros(5000, dtype=torch.int8, device=cpu)
    targets[::50], targets[7::11] = 1, -1
    errors = torch.rand(int((targets == 1).sum()), generator=generator, device=cpu)
    tolerance = max(1e-5, 2 * torch.finfo(dtype).eps)

    def same_results() -> bool:
        with torch.inference_mode(False), torch.enable_grad():
            expected = _results(logits, targets, errors)
            results = _results(logits.to(device), targets.to(device), errors.to(device))
        return all(agree(result.cpu(), wanted, tolerance) for result, wanted in zip(results, expected, strict=True))

    return passes_trial("the losses use slower operators", same_results, "their kernels give other numbers here")


def _results(logits: Tensor, targets: Tensor, errors: Tensor) -> list[Tensor]:
    """Values of all losses that have kernels, and their gradients."""
    from . import alrp_loss, ap_loss, focal_loss, rs_loss

    logits, errors = logits.clone().requires_grad_(), errors.clone().requires_grad_()
    classification, localisation = alrp_loss(logits, targets, errors)
    ranking, sorting = rs_loss(logits, targets, errors.detach())
    values = [classification, ap_loss(logits, targets), ranking, sorting, focal_loss(logits, targets)]
    gradients = [torch.autograd.grad(value, logits)[0] for value in values]
    gradients += torch.autograd.grad(localisation, errors)
    return [value.detach() for value in (*values, localisation)] + gradients
