from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import DatasetError
from data.sampler import TrainBatchSampler, eval_batches


def first(sampler: TrainBatchSampler, count: int) -> list[list[tuple[int, int]]]:
    return list(islice(sampler, count))


@settings(max_examples=60, deadline=None)
@given(
    world_size=st.integers(1, 4),
    accumulate=st.integers(1, 3),
    micro_batch=st.integers(1, 4),
    extra=st.integers(0, 60),
    seed=st.integers(0, 2**40),
)
def test_the_images_of_a_step_do_not_depend_on_how_it_is_split(
    world_size: int, accumulate: int, micro_batch: int, extra: int, seed: int
) -> None:
    batch_size = world_size * accumulate * micro_batch
    num_images, steps = batch_size + extra, 7
    whole = first(TrainBatchSampler(num_images, batch_size, seed=seed), steps)
    ranks = [
        first(
            TrainBatchSampler(
                num_images, batch_size, seed=seed, rank=rank, world_size=world_size, accumulate=accumulate
            ),
            steps * accumulate,
        )
        for rank in range(world_size)
    ]
    joined = [
        [sample for m in range(accumulate) for rank in ranks for sample in rank[step * accumulate + m]]
        for step in range(steps)
    ]
    assert joined == whole
    assert all(len(piece) == micro_batch for rank in ranks for piece in rank)


@settings(max_examples=40, deadline=None)
@given(start=st.integers(0, 40), accumulate=st.sampled_from([1, 2]), num_images=st.integers(8, 50))
def test_resuming_at_any_step_goes_on_with_the_same_sequence(start: int, accumulate: int, num_images: int) -> None:
    options = {"seed": 3, "rank": 1, "world_size": 2, "accumulate": accumulate}
    full = first(TrainBatchSampler(num_images, 8, **options), (start + 10) * accumulate)
    rest = first(TrainBatchSampler(num_images, 8, start_step=start, **options), 10 * accumulate)
    assert rest == full[start * accumulate :]


def test_an_epoch_is_a_permutation_without_its_remainder() -> None:
    sampler = TrainBatchSampler(23, 5, seed=1)
    assert (sampler.steps_per_epoch, sampler.micro_batch) == (4, 5)
    batches = first(sampler, 8)
    orders = []
    for epoch in (0, 1):
        samples = [sample for batch in batches[4 * epoch : 4 * epoch + 4] for sample in batch]
        assert {e for e, _ in samples} == {epoch}
        orders.append([index for _, index in samples])
        assert len(set(orders[-1])) == 20
        assert set(orders[-1]) <= set(range(23))
    assert orders[0] != orders[1]
    assert first(TrainBatchSampler(23, 5, seed=1), 8) == batches
    assert first(TrainBatchSampler(23, 5, seed=2), 8) != batches


def test_every_image_is_dropped_about_equally_often() -> None:
    seen = np.zeros(10)
    for batch in first(TrainBatchSampler(10, 4), 2 * 500):
        seen[[index for _, index in batch]] += 1
    assert np.abs(seen - 400).max() < 50  # 8 of 10 in each of 500 epochs; standard deviation 9


def test_batch_sizes_that_do_not_fit_are_refused_by_name() -> None:
    with pytest.raises(DatasetError, match=r"data\.batch_size=9 exceeds the 8 training images"):
        TrainBatchSampler(8, 9)
    with pytest.raises(DatasetError, match=r"data\.batch_size=8 is not divisible by 3 processes × data\.accumulate=2"):
        TrainBatchSampler(80, 8, world_size=3, accumulate=2)


def pad(size: tuple[int, int]) -> tuple[int, int]:
    return -(-size[0] // 32) * 32, -(-size[1] // 32) * 32


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 100), st.integers(1, 100)), max_size=40),
    batch_size=st.integers(1, 6),
    world_size=st.integers(1, 5),
)
def test_evaluation_takes_each_image_once_in_batches_of_one_shape(
    sizes: list[tuple[int, int]], batch_size: int, world_size: int
) -> None:
    whole = eval_batches(sizes, batch_size, pad)
    parts = [eval_batches(sizes, batch_size, pad, rank, world_size) for rank in range(world_size)]
    assert sorted(index for part in parts for batch in part for index in batch) == list(range(len(sizes)))
    assert sorted(batch for part in parts for batch in part) == sorted(whole)  # splitting changes no batch
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    areas = []
    for batch in whole:
        assert 1 <= len(batch) <= batch_size
        (shape,) = {pad(sizes[index]) for index in batch}
        areas.append(shape[0] * shape[1])
    assert areas == sorted(areas, reverse=True)
    num_full = sum(len(batch) == batch_size for batch in whole)
    assert len(whole) - num_full <= len({pad(size) for size in sizes})


def test_sizes_may_be_an_array() -> None:
    sizes = np.array([[40, 70], [10, 10], [33, 65]])
    assert eval_batches(sizes, 2, pad) == [[0, 2], [1]]
