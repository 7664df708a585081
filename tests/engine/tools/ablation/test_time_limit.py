"""Which cells start before a limit of time."""

from engine.tools.ablation.time_limit import TimeLimit


class Clock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def test_a_cell_starts_if_it_will_end_in_time():
    clock = Clock()
    limit = TimeLimit(10, clock)
    assert limit.fits(60) and limit.expected(60) is None  # the first ones start without an expectation
    limit.estimate(5.0)  # seconds an epoch, from the first minute
    assert limit.expected(60) == 300
    clock.seconds += 290
    assert limit.fits(60)
    clock.seconds += 20
    assert not limit.fits(60) and limit.fits(30)


def test_what_ended_counts_more_than_what_was_expected():
    limit = TimeLimit(10, Clock())
    limit.estimate(1.0)
    for seconds in (600, 660, 6000):
        limit.ended(seconds, epochs=60)
    assert limit.expected(60) == 660 and not limit.fits(60)


def test_without_a_limit_everything_fits():
    limit = TimeLimit(None, Clock())
    limit.ended(1e9, epochs=1)
    assert limit.fits(1000)
