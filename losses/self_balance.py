"""Self-balancing of aLRP's two parts (arXiv 2009.13592, Sec. 4.2)."""

import torch
from torch import Tensor, nn


class SelfBalance(nn.Module):
    """Weight of the localisation part, set after every epoch from that epoch's mean losses."""

    def __init__(self, initial: float = 50.0) -> None:
        super().__init__()
        self.register_buffer("weight", torch.tensor(initial, dtype=torch.float64))
        for name in ("cls_sum", "loc_sum", "count"):
            self.register_buffer(name, torch.zeros((), dtype=torch.float64))

    @torch.no_grad()
    def record(self, loss_cls: Tensor, loss_loc: Tensor) -> None:
        self.cls_sum += loss_cls
        self.loc_sum += loss_loc
        self.count += 1

    @torch.no_grad()
    def update(self) -> None:
        weight = (self.cls_sum + self.loc_sum) / self.loc_sum
        usable = (self.count > 0) & (self.loc_sum > 0) & torch.isfinite(weight)
        self.weight.copy_(torch.where(usable, weight, self.weight))
        for total in (self.cls_sum, self.loc_sum, self.count):
            total.zero_()
