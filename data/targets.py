"""The targets of a batch: one dict an image for those who read them, one tensor a key for those who move them."""

from collections.abc import Iterator, Sequence
from typing import Any, overload

import torch
from torch import Tensor

from data.annotations import OBJECT_KEYS
from data.augment import Target


class BatchTargets(Sequence[dict[str, Any]]):
    """Sequence of B targets whose objects lie joined: N of all images, in the images' order.

    An item is the dict of one image, "boxes" (n, 4), "labels" (n,) and "crowd" (n,) as views, and what else its
    sample had. So a batch crosses to another process or device in a few tensors, however many images it has.

    Args:
        boxes: (N, 4); labels: (N,); crowd: (N,).
        image: (N,) int64, which image each object is in, ascending; place: (N,) its number there, from 0.
        counts: objects of each image.
        others: per image, the other entries of its dict.
    """

    def __init__(
        self,
        boxes: Tensor,
        labels: Tensor,
        crowd: Tensor,
        image: Tensor,
        place: Tensor,
        counts: list[int],
        others: list[dict[str, Any]],
    ) -> None:
        self.boxes, self.labels, self.crowd, self.image, self.place = boxes, labels, crowd, image, place
        self.counts, self.others = counts, others

    @classmethod
    def join(cls, targets: Sequence[Target]) -> "BatchTargets":
        """From one dict an image."""
        counts = [len(target["boxes"]) for target in targets]
        boxes, labels, crowd = (torch.cat([target[key] for target in targets]) for key in OBJECT_KEYS)
        image = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
        place = torch.cat([torch.arange(count) for count in counts])
        others = [{key: value for key, value in target.items() if key not in OBJECT_KEYS} for target in targets]
        return cls(boxes, labels, crowd, image, place, counts, others)

    def __len__(self) -> int:
        return len(self.counts)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...

    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        numbers = range(len(self))[index]
        return [self._of_image(number) for number in numbers] if isinstance(numbers, range) else self._of_image(numbers)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self._of_image(number) for number in range(len(self)))

    def pin_memory(self) -> "BatchTargets":
        """With tensors in page-locked memory, for the loader."""
        return self._with(tensor.pin_memory() for tensor in self._tensors)

    def to(self, device: torch.device) -> "BatchTargets":
        """On a device; the copy is not waited for."""
        return self._with(tensor.to(device, non_blocking=True) for tensor in self._tensors)

    def _of_image(self, number: int) -> dict[str, Any]:
        first = sum(self.counts[:number])
        objects = slice(first, first + self.counts[number])
        own = {key: getattr(self, key)[objects] for key in OBJECT_KEYS}
        return {**own, **self.others[number]}

    @property
    def _tensors(self) -> tuple[Tensor, ...]:
        return self.boxes, self.labels, self.crowd, self.image, self.place

    def _with(self, tensors: Iterator[Tensor]) -> "BatchTargets":
        boxes, labels, crowd, image, place = tensors
        return BatchTargets(boxes, labels, crowd, image, place, self.counts, self.others)
