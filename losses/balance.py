"""Self-balancing of the two parts of aLRP Loss (arXiv 2009.13592, Sec. 4)."""

import torch
from torch import Tensor, nn


class SelfBalance(nn.Module):
    """Weight w of the localisation part: total = classification + w * localisation.

    After every epoch w = (mean classification + mean localisation) / mean localisation over that epoch's steps; where
    an epoch is a large part of the training, better after fewer steps (docs/ablation.md).
    Weight and sums are buffers, so a checkpoint holds them and a run that is resumed within an epoch forgets
    nothing. There is no collective here: record values that are the same on every process.

    Args:
        initial: w until the first update (released code: 50).
    """

    weight: Tensor
    cls_sum: Tensor
    loc_sum: Tensor

    def __init__(self, initial: float = 50.0) -> None:
        super().__init__()
        self.register_buffer("weight", torch.tensor(initial, dtype=torch.float64))
        self.register_buffer("cls_sum", torch.zeros((), dtype=torch.float64))
        self.register_buffer("loc_sum", torch.zeros((), dtype=torch.float64))

    @torch.no_grad()
    def record(self, loss_cls: Tensor, loss_loc: Tensor) -> None:
        """Adds one step's unweighted parts, scalars averaged over the processes. Waits for no device."""
        self.cls_sum += loss_cls
        self.loc_sum += loss_loc

    @torch.no_grad()
    def update(self) -> None:
        """Sets the weight from the steps recorded since the last update.

        The weight stays where nothing was recorded or the mean localisation is not a positive number.
        """
        weight = (self.cls_sum + self.loc_sum) / self.loc_sum
        usable = (self.loc_sum > 0) & torch.isfinite(weight)
        self.weight.copy_(torch.where(usable, weight, self.weight))
        self.cls_sum.zero_()
        self.loc_sum.zero_()
