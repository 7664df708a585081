"""The boxes from which a detector predicts, known without its network: where they lie and which are positive."""

from collections.abc import Sequence

from torch import Tensor

from detector.anchors import AnchorGenerator
from detector.assignment import Matcher


class References:
    """Anchors of the levels of a pyramid and the matcher that tells positive ones from negative ones.

    Args:
        generator: of the anchors. matcher: see `detector.matcher`.
        level_names: such as P3, one a stride.
    """

    def __init__(self, generator: AnchorGenerator, matcher: Matcher, level_names: Sequence[str]) -> None:
        self.generator, self.matcher, self.level_names = generator, matcher, tuple(level_names)

    def boxes(self, image_size: tuple[int, int]) -> list[Tensor]:
        """Reference boxes of an image of (height, width), multiples of 32: per level (n, 4) xyxy pixels."""
        return self.generator.of_image(image_size)

    def match(self, boxes_per_level: Sequence[Tensor], gt_boxes: Tensor) -> Tensor:
        """Of each of the A reference boxes of an image the index of its object among gt_boxes (G, 4), -1 negative, -2
        ignored: (A,) int64."""
        return self.matcher(boxes_per_level, gt_boxes)
