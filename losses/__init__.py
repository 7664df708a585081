"""Losses on flat tensors: aLRP, AP and Rank & Sort Loss ranked exactly, focal loss, smooth L1, self-balancing.

Letters: M logits in the ranked vector, P positives among them (over the whole process group), N negatives.
Targets are 1 for a positive, 0 for a negative and -1 for an ignored entry, in any integer, float or bool dtype.
"""

from .alrp import alrp_loss
from .ap import ap_loss
from .balance import SelfBalance
from .focal import focal_loss
from .rank_sort import rs_loss
from .smooth_l1 import smooth_l1_loss

__all__ = ["SelfBalance", "alrp_loss", "ap_loss", "focal_loss", "rs_loss", "smooth_l1_loss"]
