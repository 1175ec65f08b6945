from __future__ import annotations

import random
import statistics

import pytest

from statevault.threads import TickStatistics


def test_a_single_duration_has_no_spread() -> None:
    ticks = TickStatistics()
    ticks.add(0.25)
    assert (ticks.count, ticks.mean_s, ticks.stdev_s, ticks.min_s, ticks.max_s) == (1, 0.25, 0.0, 0.25, 0.25)


def test_without_durations_nothing_is_divided_by_zero() -> None:
    assert (TickStatistics().count, TickStatistics().mean_s, TickStatistics().stdev_s) == (0, 0.0, 0.0)


def test_mean_and_spread_are_those_of_the_whole_sample() -> None:
    durations = [random.Random(1).lognormvariate(-5, 1) for _ in range(1000)] + [30.0]
    ticks = TickStatistics()
    for duration in durations:
        ticks.add(duration)
    assert ticks.mean_s == pytest.approx(statistics.mean(durations))
    assert ticks.stdev_s == pytest.approx(statistics.stdev(durations))
    assert (ticks.min_s, ticks.max_s) == (min(durations), max(durations))
