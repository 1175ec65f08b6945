"""What the figures of the benchmarks are made of."""

from __future__ import annotations

import os

import pytest

from benchmarks.jitter import lateness
from benchmarks.measure import Spread, in_child, interleaved, quantile
from benchmarks.report import Row


def test_rounds_alternate_and_the_first_does_not_count() -> None:
    calls: list[str] = []
    figures = {"a": iter([100.0, 1.0, 3.0, 2.0]), "b": iter([100.0, 4.0, 4.0, 4.0])}

    def action(name: str) -> float:
        calls.append(name)
        return next(figures[name])

    spreads = interleaved({"a": lambda: action("a"), "b": lambda: action("b")}, 3)
    assert calls == ["a", "b"] * 4
    assert spreads == {"a": Spread(2.0, 1.0, 3.0), "b": Spread(4.0, 4.0, 4.0)}


def test_a_spread_in_a_unit_that_turns_it_round() -> None:
    assert Spread(2.0, 1.0, 4.0).map(lambda seconds: 1 / seconds) == Spread(0.5, 0.25, 1.0)


@pytest.mark.parametrize(("share", "value"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.001, 1)])
def test_quantiles_are_nearest_ranks(share: float, value: int) -> None:
    assert quantile(range(100, 0, -1), share) == value


def test_a_child_is_another_process() -> None:
    assert in_child(os.getpid) != os.getpid()


def test_ratios_above_one_are_in_our_favour() -> None:
    two, four = Spread(2.0, 2.0, 2.0), Spread(4.0, 4.0, 4.0)
    assert Row("speed", four, two, "1/s", "higher").ratio == 2.0
    assert Row("time", four, two, "s", "lower").ratio == 0.5
    assert Row("time", four, Spread(0.0, 0.0, 0.0), "s", "lower").ratio is None
    assert Row("time", four, None, "s", "lower").ratio is None


def late(times: list[float], agent: list[float] | None = None) -> list[float]:
    return [round(value, 6) for value in lateness(times, agent or times, interval_s=1.0, deadline=10.0)]


def test_lateness_counts_from_the_deadline_of_each_step() -> None:
    assert late([0.1, 1.2, 2.0, 3.05]) == [0.2, 0.0, 0.05]


def test_a_step_that_missed_deadlines_is_late_by_all_of_them() -> None:
    # Due at 1, begun at 3.5; the deadlines 2 and 3 are dropped.
    assert late([0.0, 3.5, 4.0, 5.25]) == [2.5, 0.0, 0.25]


def test_a_step_that_makes_up_for_a_missed_deadline_shifts_no_later_one() -> None:
    assert late([0.0, 2.5, 2.75, 3.25, 4.5]) == [1.5, 0.75, 0.25, 0.5]


def test_a_pause_of_the_clock_counts_as_lateness_once() -> None:
    assert late([0.0, 1.0, 5.0, 6.0], [0.0, 1.0, 2.0, 3.0]) == [0.0, 3.0, 0.0]
