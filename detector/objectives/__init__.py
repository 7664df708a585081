"""From predictions and targets to named parts of a loss.

The usual objective matches and then compares (`MatchedObjective`, with any loss of `losses.table`); `FreeAnchor` needs
objects and predictions together.
"""

from detector.assignment import Matcher
from detector.boxes import Coding
from detector.objectives.free_anchor import FreeAnchor
from detector.objectives.matched import MatchedObjective
from losses.free_anchor import FreeAnchorLoss
from losses.loss import LossSettings
from losses.table import build_loss

__all__ = ["AnchorObjective", "FreeAnchor", "MatchedObjective", "build_objective"]

AnchorObjective = MatchedObjective | FreeAnchor


def build_objective(matcher: Matcher, settings: LossSettings, ignore_crowd: bool, coding: Coding) -> AnchorObjective:
    """The objective of a head that predicts offsets of anchors, by the loss that the settings are of."""
    loss = build_loss(settings)
    if isinstance(loss, FreeAnchorLoss):
        return FreeAnchor(loss, ignore_crowd, coding)
    return MatchedObjective(matcher, loss, ignore_crowd, coding)
