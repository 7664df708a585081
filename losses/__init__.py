"""aLRP, AP and Rank & Sort Loss ranked exactly, as modules and on flat tensors; DR and focal loss, smooth L1.

Installed, this folder is the package `alrp`, and needs torch alone.

Letters: M logits in the ranked vector, P positives among them (over the whole process group), N negatives.
Targets are 1 for a positive, 0 for a negative and -1 for an ignored entry, in any integer, float or bool dtype.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .alrp import ALRPLoss, alrp_loss
    from .ap import APLoss, ap_loss
    from .balance import SelfBalance
    from .dr import dr_loss
    from .focal import focal_loss
    from .rank_sort import RankSortLoss, rs_loss
    from .smooth_l1 import smooth_l1_loss

__all__ = [
    "ALRPLoss",
    "APLoss",
    "RankSortLoss",
    "SelfBalance",
    "alrp_loss",
    "ap_loss",
    "dr_loss",
    "focal_loss",
    "rs_loss",
    "smooth_l1_loss",
]
__version__ = "0.2.0"

# Imported when first asked for, so that `import alrp.metrics` loads no torch.
_HOMES = {
    "ALRPLoss": "alrp",
    "APLoss": "ap",
    "RankSortLoss": "rank_sort",
    "SelfBalance": "balance",
    "alrp_loss": "alrp",
    "ap_loss": "ap",
    "dr_loss": "dr",
    "focal_loss": "focal",
    "rs_loss": "rank_sort",
    "smooth_l1_loss": "smooth_l1",
}

if not TYPE_CHECKING:  # a type checker would take any name for one of these

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f".{_HOMES[name]}", __name__), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
