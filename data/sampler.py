"""The images of each batch, the same for any number of processes and loader workers."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from data.errors import DatasetError
from data.seeds import mix_seed


class TrainBatchSampler:
    """Endless micro-batches of one process, each a list of (epoch, index).

    An epoch is floor(num_images / batch_size) steps over a permutation drawn from (seed, epoch), the rest dropped.
    Step b takes permutation[b·batch_size:(b+1)·batch_size], cut into accumulate × world_size consecutive pieces;
    micro-batch m of a rank is piece m·world_size + rank. So the images of a step do not depend on how it is split.

    Args:
        num_images: size of the data set.
        batch_size: images per optimizer step, over all processes.
        seed: of the permutations.
        rank, world_size: this process among all.
        accumulate: micro-batches per step and process.
        start_step: optimizer steps already done; the sequence goes on as if it had never stopped.
    Raises:
        DatasetError: batch_size exceeds num_images, or world_size × accumulate does not divide it.

    Attributes:
        steps_per_epoch: optimizer steps of an epoch.
        micro_batch: images per micro-batch.
    """

    def __init__(
        self,
        num_images: int,
        batch_size: int,
        *,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        accumulate: int = 1,
        start_step: int = 0,
    ) -> None:
        if batch_size > num_images:
            raise DatasetError(f"data.batch_size={batch_size} exceeds the {num_images} training images; lower it")
        if batch_size % (world_size * accumulate):
            raise DatasetError(
                f"data.batch_size={batch_size} is not divisible by {world_size} processes"
                f" × data.accumulate={accumulate}; change one of them"
            )
        self.num_images, self.batch_size, self.seed = num_images, batch_size, seed
        self.rank, self.world_size, self.accumulate, self.start_step = (
            rank,
            world_size,
            accumulate,
            start_step,
        )
        self.steps_per_epoch = num_images // batch_size
        self.micro_batch = batch_size // (world_size * accumulate)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, first = divmod(self.start_step, self.steps_per_epoch)
        while True:
            order = self._permutation(epoch)
            for step in range(first, self.steps_per_epoch):
                for m in range(self.accumulate):
                    start = step * self.batch_size + (m * self.world_size + self.rank) * self.micro_batch
                    yield [(epoch, index) for index in order[start : start + self.micro_batch]]
            epoch, first = epoch + 1, 0

    def _permutation(self, epoch: int) -> list[int]:
        generator = torch.Generator().manual_seed(mix_seed(self.seed, epoch))
        return torch.randperm(self.num_images, generator=generator).tolist()


def eval_batches(
    sizes: Sequence[tuple[int, int]] | np.ndarray,
    batch_size: int,
    padded_size: Callable[[tuple[int, int]], tuple[int, int]],
    rank: int = 0,
    world_size: int = 1,
) -> list[list[int]]:
    """The batches of one rank: every image exactly once over all ranks, images of one padded size together.

    Largest first, so that memory runs out at once or not at all. Which images share a batch does not depend on the
    number of processes.

    Args:
        sizes: (height, width) of every image, by index.
        batch_size: images per batch, at most.
        padded_size: from an image's (height, width) to that of its padded input.
    Returns:
        Lists of indices; none where there are fewer batches than ranks.
    """
    groups: dict[tuple[int, int], list[int]] = {}
    for index, (height, width) in enumerate(sizes):
        groups.setdefault(padded_size((int(height), int(width))), []).append(index)
    batches = []
    for shape in sorted(groups, key=lambda shape: (-shape[0] * shape[1], shape)):
        group = groups[shape]
        batches += [group[i : i + batch_size] for i in range(0, len(group), batch_size)]
    return batches[rank::world_size]
