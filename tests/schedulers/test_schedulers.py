"""Schedulers: when they call, what they call, on the agent's clock."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from statevault import time
from statevault.schedulers import Scheduler, StepIntervalScheduler, TimeIntervalScheduler


@pytest.fixture
def clock() -> Iterator[time.TimeController]:
    """The agent's clock, standing still: it moves only when a test moves it."""
    controller = time.get_global_time_controller()
    controller.pause()
    yield controller
    controller.resume()


def advance(clock: time.TimeController, seconds: float) -> None:
    clock.load_state_dict({name: shown + seconds for name, shown in clock.state_dict().items()})


class Always(Scheduler):
    def is_available(self) -> bool:
        return True


def test_callbacks_are_called_in_order_until_they_are_removed() -> None:
    calls: list[str] = []

    def first() -> None:
        calls.append("first")

    def second() -> None:
        calls.append("second")

    scheduler = Always([first])
    scheduler.register_callback(second)
    scheduler.update()
    assert calls == ["first", "second"]
    scheduler.remove_callback(first)
    scheduler.update()
    assert calls == ["first", "second", "second"]


def test_a_callback_may_remove_itself() -> None:
    calls: list[str] = []
    scheduler = Always()

    def once() -> None:
        calls.append("once")
        scheduler.remove_callback(once)

    scheduler.register_callback(once)
    scheduler.register_callback(lambda: calls.append("ever"))
    scheduler.update()
    scheduler.update()
    assert calls == ["once", "ever", "ever"]


def test_removing_what_is_not_registered_is_an_error() -> None:
    with pytest.raises(ValueError, match="not registered with this Always"):
        Always().remove_callback(print)


def test_time_intervals_are_of_the_agents_time(clock: time.TimeController) -> None:
    calls: list[float] = []
    scheduler = TimeIntervalScheduler(10.0, [lambda: calls.append(time.monotonic())])
    scheduler.update()
    assert len(calls) == 1
    scheduler.update()
    advance(clock, 9.0)
    scheduler.update()
    assert len(calls) == 1
    advance(clock, 1.5)
    assert scheduler.is_available()
    scheduler.update()
    assert len(calls) == 2
    advance(clock, 100.0)  # an interval that was missed is not made up for
    scheduler.update()
    scheduler.update()
    assert len(calls) == 3


def test_an_interval_of_zero_is_every_update_also_while_the_clock_stands(clock: time.TimeController) -> None:
    calls: list[float] = []
    scheduler = TimeIntervalScheduler(0, [lambda: calls.append(time.monotonic())])
    for _ in range(3):
        scheduler.update()
    assert clock.is_paused()
    assert len(calls) == 3


def test_an_endless_interval_is_the_first_update_only(clock: time.TimeController) -> None:
    calls: list[float] = []
    scheduler = TimeIntervalScheduler(math.inf, [lambda: calls.append(time.monotonic())])
    for _ in range(3):
        scheduler.update()
        advance(clock, 1e9)
    assert len(calls) == 1
    advance(clock, -3e9)


def test_a_clock_that_a_loaded_state_sets_back_does_not_stop_a_scheduler(clock: time.TimeController) -> None:
    calls: list[float] = []
    scheduler = TimeIntervalScheduler(10.0, [lambda: calls.append(time.monotonic())])
    scheduler.update()
    advance(clock, -1e6)
    for _ in range(3):
        scheduler.update()
    assert len(calls) == 2
    advance(clock, 10.5)
    scheduler.update()
    assert len(calls) == 3
    advance(clock, 1e6 - 10.5)


def test_a_time_interval_that_fails_is_tried_again(clock: time.TimeController) -> None:
    scheduler = TimeIntervalScheduler(10.0, [lambda: 1 / 0])  # type: ignore[list-item]
    with pytest.raises(ZeroDivisionError):
        scheduler.update()
    assert scheduler.is_available()


def test_steps_are_counted() -> None:
    calls: list[int] = []
    updates = 0
    scheduler = StepIntervalScheduler(3, [lambda: calls.append(updates)])
    for updates in range(1, 8):  # noqa: B007 - the callback reads it
        scheduler.update()
    assert calls == [3, 6]


@pytest.mark.parametrize("interval", [-1.0, math.nan])
def test_a_time_interval_that_is_none_is_refused(interval: float) -> None:
    with pytest.raises(ValueError, match="0 seconds or more"):
        TimeIntervalScheduler(interval)


@pytest.mark.parametrize("interval", [0, -1])
def test_a_step_interval_that_is_none_is_refused(interval: int) -> None:
    with pytest.raises(ValueError, match="1 step or more"):
        StepIntervalScheduler(interval)
