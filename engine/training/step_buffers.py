"""Buffers that a forward pass updates, such as BatchNorm's running statistics, undone where a step does not count."""

import torch
from torch import Tensor, nn

from detector.backbones.norm import FrozenBatchNorm2d, running_statistics


class StepBuffers:
    """A second copy of a model's buffers, as they were before the step.

    Frozen BatchNorm, whose many buffers no step touches, is left out: a model without running statistics has next to
    nothing to copy. No call waits for the device, but for one small read in `settle` where there are statistics.

    Args:
        model: on its device. Its buffers must be written in place, never replaced.
    """

    def __init__(self, model: nn.Module) -> None:
        self._pairs = [(live, [buffer.clone() for buffer in live]) for live in changing_buffers(model)]
        self._statistics = running_statistics(model)

    @torch.no_grad()
    def keep(self) -> None:
        """To be called before the first forward pass of a step."""
        for live, kept in self._pairs:
            torch._foreach_copy_(kept, live)

    @torch.no_grad()
    def restore(self) -> None:
        """Gives the buffers the values of the latest `keep`."""
        for live, kept in self._pairs:
            torch._foreach_copy_(live, kept)

    @torch.no_grad()
    def settle(self, counts: bool) -> None:
        """To be called at the end of a step, with whether it counts; before anything else reads the buffers.

        The statistics of a step that counts are undone too where they are not finite: float32 holds activations of
        1e20, but not their variance, and a running average never forgets an Inf.
        """
        if not counts or not self._finite():
            self.restore()

    def _finite(self) -> bool:
        if not self._statistics:
            return True
        largest = torch._foreach_norm(self._statistics, float("inf"))
        return bool(torch.stack(largest).isfinite().all())


def changing_buffers(model: nn.Module) -> list[list[Tensor]]:
    """The buffers but those of frozen BatchNorm, by type: fused copies take one type at a time."""
    by_dtype: dict[torch.dtype, list[Tensor]] = {}
    for module in model.modules():
        if not isinstance(module, FrozenBatchNorm2d):
            for buffer in module.buffers(recurse=False):
                by_dtype.setdefault(buffer.dtype, []).append(buffer)
    return list(by_dtype.values())
