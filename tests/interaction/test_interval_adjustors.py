"""The grid of deadlines, on a clock that the test moves."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Iterator

import pytest

from statevault import time
from statevault.interaction import Agent, Environment, FixedIntervalInteraction, IntervalAdjustor, SleepIntervalAdjustor


class Grid(IntervalAdjustor):
    """Waits by moving the agent's clock to the deadline."""

    def adjust_impl(self) -> None:
        self.waits = [*getattr(self, "waits", []), self.deadline]
        move(self.deadline - time.perf_counter())


def move(seconds: float) -> None:
    state = time.state_dict()
    time.load_state_dict({name: shown + seconds for name, shown in state.items()})


@pytest.fixture
def stopped_clock() -> Iterator[None]:
    state = time.state_dict()
    time.pause()
    time.load_state_dict({"time": 0.0, "perf_counter": 0.0, "monotonic": 0.0})
    yield
    time.load_state_dict(state)
    time.resume()


@pytest.mark.usefixtures("stopped_clock")
class TestGrid:
    def test_deadlines_are_a_grid_whatever_the_steps_take(self) -> None:
        grid = Grid(1.0)
        for step_s in [0.3, 0.9, 0.0, 0.5]:
            move(step_s)
            grid.adjust()
        assert grid.waits == pytest.approx([1, 2, 3, 4])
        assert grid.overruns == 0

    def test_adjust_tells_the_time_since_the_last_one(self) -> None:
        grid = Grid(1.0)
        move(0.25)
        assert grid.adjust() == pytest.approx(1.0)
        move(1.25)
        assert grid.adjust() == pytest.approx(1.25)

    def test_an_overrun_is_counted_and_does_not_move_the_grid(self) -> None:
        grid = Grid(1.0)
        move(1.2)
        grid.adjust()
        assert time.perf_counter() == pytest.approx(1.2)
        move(0.1)
        grid.adjust()
        assert grid.waits == pytest.approx([2])
        assert grid.overruns == 1

    def test_deadlines_missed_by_a_long_step_are_dropped_not_made_up_for(self) -> None:
        grid = Grid(1.0)
        move(5.5)
        grid.adjust()
        grid.adjust()
        grid.adjust()
        assert grid.waits == pytest.approx([6, 7])
        assert grid.overruns == 5

    def test_a_hold_up_from_outside_is_no_overrun(self) -> None:
        grid = Grid(1.0)
        grid.excuse()
        move(5.5)
        grid.adjust()
        assert grid.overruns == 0
        move(1.0)
        grid.adjust()
        assert grid.overruns == 1

    def test_an_offset_ends_waits_earlier_and_leaves_the_grid(self) -> None:
        grid = Grid(1.0, offset=0.25)
        for _ in range(3):
            grid.adjust()
        assert grid.waits == pytest.approx([0.75, 1.75, 2.75])

    def test_a_reset_begins_a_new_grid(self) -> None:
        grid = Grid(1.0)
        move(0.5)
        assert grid.reset() == pytest.approx(0.5)
        grid.adjust()
        assert grid.waits == pytest.approx([1.5])

    def test_a_clock_that_a_loaded_state_sets_back_begins_a_new_grid(self) -> None:
        move(100_000)
        grid = Grid(1.0)
        move(-99_000)
        grid.adjust()
        grid.adjust()
        assert grid.waits == pytest.approx([1001, 1002])
        assert grid.overruns == 0

    def test_overruns_are_logged_but_do_not_fill_the_log(self, caplog: pytest.LogCaptureFixture) -> None:
        grid = Grid(1.0)
        with caplog.at_level(logging.WARNING):
            for _ in range(100):
                move(1.5)
                grid.adjust()
        assert len(caplog.records) == 1
        assert "exceed their interval of 1 s" in caplog.text
        assert grid.overruns >= 50


@pytest.mark.parametrize("interval", [0, -1, float("nan"), float("inf")])
def test_an_interval_that_is_none_is_refused(interval: float) -> None:
    with pytest.raises(ValueError, match="interval"):
        SleepIntervalAdjustor(interval)


class Count(Environment[int, int]):
    def __init__(self) -> None:
        self.steps = 0

    def observe(self) -> int:
        self.steps += 1
        return self.steps

    def affect(self, action: int) -> None:
        pass


class Same(Agent[int, int]):
    def step(self, observation: int) -> int:
        return observation


def test_a_fixed_interval_interaction_sleeps_between_its_steps() -> None:
    env = Count()
    interaction = FixedIntervalInteraction.with_sleep_adjustor(Same(), env, interval=0.01)
    interaction.setup()
    began = time.perf_counter()
    for _ in range(5):
        interaction.step()
    assert env.steps == 5
    # A sleep never ends early, and five deadlines have passed.
    assert time.perf_counter() - began >= 5 * 0.01 - 1e-3


def test_resuming_excuses_the_step_that_was_held_up() -> None:
    interaction = FixedIntervalInteraction(Same(), Count(), Grid(1000.0))
    interaction.on_resumed()
    move(2500)
    interaction.adjustor.adjust()
    assert interaction.adjustor.overruns == 0


def test_the_grid_outlasts_overruns_pauses_and_changes_of_scale_on_the_real_clock() -> None:
    interval = 0.02
    grid = SleepIntervalAdjustor(interval)
    begin = grid.reset()
    waits = []
    try:
        for step in range(24):
            if step == 4:
                time.fixed_sleep(2.5 * interval)
            elif step == 8:
                time.pause()
                threading.Timer(3 * interval, time.resume).start()
            elif step in {12, 18}:
                time.set_time_scale(3.0 if step == 12 else 1.0)
            waits.append(grid.deadline - begin)
            grid.adjust()
    finally:
        time.set_time_scale(1.0)
        time.resume()
    places = [wait / interval for wait in waits]
    assert places == pytest.approx([round(place) for place in places], abs=1e-6)
    assert all(later > earlier for earlier, later in itertools.pairwise(places))
    assert round(places[5]) - round(places[4]) >= 2, "deadlines that passed are dropped"
