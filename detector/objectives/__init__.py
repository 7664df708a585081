"""From predictions and targets to named parts of a loss.

The usual objective matches and then compares (`MatchedObjective`, with any loss of `losses.table`); an objective that
needs objects and predictions together is a module of its own beside it.
"""

from detector.objectives.matched import MatchedObjective

__all__ = ["MatchedObjective"]
