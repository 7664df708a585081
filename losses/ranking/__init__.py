"""The exact ranking of positives among all logits, without comparing pairs. Private to `losses`."""

from .ranking import Ranking

__all__ = ["Ranking"]
