"""Which boxes a head of Faster R-CNN learns from: matched by IoU, and some of them drawn at random.

B images, A boxes of one image. Random numbers are torch's own, seeded in every step and on every process.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from detector.assignment import Matcher
from detector.matcher import IGNORED, NEGATIVE


class Sampler(NamedTuple):
    """Draws boxes of each image alike: up to a share of positives, and negatives for the rest.

    Attributes:
        number: of boxes of an image, at most. positive_share: of positives among them, at most.
    """

    number: int
    positive_share: float

    def __call__(self, matches: Tensor) -> Tensor:
        """(B, A) matches, see `detector.matcher`, to the same with all ignored that are not drawn."""
        keys = torch.rand(matches.shape, device=matches.device)
        positive = matches >= 0
        most = torch.full_like(matches[:, :1], int(self.number * self.positive_share))
        positive = _draw(keys, positive, most, self.number)
        room = self.number - positive.sum(dim=1, keepdim=True)
        negative = _draw(keys, matches == NEGATIVE, room, self.number)
        return matches.where(positive | negative, IGNORED)


class SampledMatcher:
    """A matcher of which a sampler draws; boxes without area, such as padding, are ignored.

    Args:
        matcher: see `detector.matcher`; takes several images at once.
        sampler: None for all boxes.
    """

    def __init__(self, matcher: Matcher, sampler: Sampler | None) -> None:
        self.matcher, self.sampler = matcher, sampler

    def __call__(self, boxes_per_level: Sequence[Tensor], gt_boxes: Tensor) -> Tensor:
        """Matches boxes (n, 4) or (B, n, 4) of each level with objects (B, G, 4): (B, A), as of the matcher."""
        boxes = torch.cat(list(boxes_per_level), dim=-2)
        matches = self.matcher(boxes_per_level, gt_boxes).where(boxes.any(dim=-1), IGNORED)
        return matches if self.sampler is None else self.sampler(matches)


def _draw(keys: Tensor, candidates: Tensor, counts: Tensor, most: int) -> Tensor:
    """(B, A) bool, the counts (B, 1) <= most candidates (B, A) of each row that have the lowest keys; all, if fewer."""
    lowest = keys.masked_fill(~candidates, 2.0).topk(min(most, keys.shape[1]), dim=1, largest=False).indices
    places = torch.arange(lowest.shape[1], device=keys.device)
    return torch.zeros_like(candidates).scatter_(1, lowest, places < counts) & candidates
