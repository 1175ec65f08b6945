from __future__ import annotations

import itertools
import pickle
import threading
import time as system_time
from pathlib import Path

import pytest

from statevault import time
from statevault.errors import FormatError
from statevault.time import TimeController


@pytest.fixture
def clock() -> TimeController:
    return TimeController()


class Sleeper:
    """Sleeps on a clock in a thread, and notes how long that took on the clock and in fact."""

    def __init__(self, clock: TimeController, seconds: float) -> None:
        self.to_the_end: bool | None = None
        self.agent_s = self.real_s = 0.0
        self._clock, self._seconds = clock, seconds
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        agent, real = self._clock.perf_counter(), system_time.perf_counter()
        self.to_the_end = self._clock.sleep(self._seconds)
        self.agent_s = self._clock.perf_counter() - agent
        self.real_s = system_time.perf_counter() - real

    def join(self) -> None:
        self._thread.join(timeout=600)
        assert not self._thread.is_alive()


def test_an_untouched_clock_shows_the_time_of_the_system(clock: TimeController) -> None:
    assert clock.time() == pytest.approx(system_time.time(), abs=1)
    assert clock.perf_counter() == pytest.approx(system_time.perf_counter(), abs=1)
    assert clock.monotonic() == pytest.approx(system_time.monotonic(), abs=1)


def test_a_paused_clock_stands_still_and_goes_on_where_it_stood(clock: TimeController) -> None:
    clock.pause()
    shown = clock.state_dict()
    system_time.sleep(0.02)
    assert clock.is_paused()
    assert clock.state_dict() == shown
    clock.resume()
    assert not clock.is_paused()
    system_time.sleep(0.01)
    assert clock.perf_counter() > shown["perf_counter"]


def test_what_is_done_in_a_pause_does_not_let_its_time_pass(clock: TimeController) -> None:
    clock.pause()
    shown = clock.state_dict()
    system_time.sleep(0.02)
    clock.pause()
    clock.set_time_scale(2.0)
    assert clock.state_dict() == shown
    system_time.sleep(0.02)
    clock.set_time_scale(1e-6)
    clock.resume()
    assert clock.perf_counter() - shown["perf_counter"] < 0.01


def test_pausing_twice_is_pausing_once(clock: TimeController) -> None:
    clock.pause()
    clock.pause()
    clock.resume()
    before = clock.time()
    system_time.sleep(0.01)
    assert clock.time() > before


def test_a_scaled_clock_runs_faster(clock: TimeController) -> None:
    clock.set_time_scale(1000)
    assert clock.get_time_scale() == 1000
    agent, real = clock.perf_counter(), system_time.perf_counter()
    system_time.sleep(0.01)
    real_s = system_time.perf_counter() - real
    # Read after the system's clock, so it may only be ahead.
    assert clock.perf_counter() - agent >= 1000 * real_s * 0.999


@pytest.mark.parametrize("scale", [0, -1, float("nan"), float("inf")])
def test_a_scale_that_is_no_speed_is_refused(clock: TimeController, scale: float) -> None:
    with pytest.raises(ValueError, match="positive, finite"):
        clock.set_time_scale(scale)


def test_the_clock_never_goes_back_while_it_is_paused_and_scaled_at_random(clock: TimeController) -> None:
    shown = [clock.monotonic()]
    for round_ in range(2000):
        match round_ % 4:
            case 0:
                clock.pause()
            case 1:
                clock.resume()
            case 2:
                clock.set_time_scale(0.001)
            case 3:
                clock.set_time_scale(50)
        shown.append(clock.monotonic())
    assert shown == sorted(shown)


def test_a_change_costs_no_time() -> None:
    """On a real clock that moves by a second at each reading, only the readings between count."""
    readings = itertools.count()
    clock = TimeController(real_time=lambda: float(next(readings)))
    before, real = clock.perf_counter(), next(readings)
    for _ in range(1000):
        clock.set_time_scale(1.0)
        clock.resume()
    passed = next(readings) - real
    assert clock.perf_counter() - before == pytest.approx(passed + 2, abs=1e-6)


def test_a_sleep_never_ends_early(clock: TimeController) -> None:
    sleeper = Sleeper(clock, 0.03)
    sleeper.join()
    assert sleeper.to_the_end is True
    assert sleeper.agent_s >= 0.03


def test_a_sleep_that_spans_a_pause_lasts_the_right_agent_time(clock: TimeController) -> None:
    sleeper = Sleeper(clock, 0.05)
    clock.pause()
    system_time.sleep(0.2)
    clock.resume()
    sleeper.join()
    assert sleeper.agent_s >= 0.05
    assert sleeper.real_s >= 0.2


def test_a_sleep_that_spans_a_change_of_scale_lasts_the_right_agent_time(clock: TimeController) -> None:
    sleeper = Sleeper(clock, 3600)
    clock.set_time_scale(360_000)
    sleeper.join()
    assert sleeper.to_the_end is True
    assert sleeper.agent_s >= 3600
    assert sleeper.real_s < 3600


def test_a_sleep_is_not_disturbed_by_loading_a_state(clock: TimeController) -> None:
    state = clock.state_dict()
    sleeper = Sleeper(clock, 0.05)
    clock.load_state_dict({name: shown + 1e6 for name, shown in state.items()})
    sleeper.join()
    assert sleeper.to_the_end is True
    assert sleeper.real_s >= 0.05


def test_interrupted_sleeps_end_and_later_ones_do_not_begin_until_allowed(clock: TimeController) -> None:
    sleepers = [Sleeper(clock, 3600) for _ in range(3)]
    clock.pause()
    clock.interrupt_sleeps()
    for sleeper in sleepers:
        sleeper.join()
        assert sleeper.to_the_end is False
    assert clock.sleep(3600) is False
    clock.allow_sleeps()
    clock.resume()
    assert clock.sleep(0.001) is True


def test_other_threads_use_the_clock_while_one_sleeps(clock: TimeController) -> None:
    sleeper = Sleeper(clock, 3600)
    for _ in range(100):
        clock.time()
        clock.pause()
        clock.resume()
    clock.interrupt_sleeps()
    sleeper.join()


@pytest.mark.parametrize("seconds", [-1.0, float("nan")])
def test_a_sleep_of_no_duration_is_refused(clock: TimeController, seconds: float) -> None:
    with pytest.raises(ValueError, match="0 seconds or more"):
        clock.sleep(seconds)


def test_a_saved_clock_goes_on_where_it_stood(clock: TimeController, tmp_path: Path) -> None:
    clock.load_state_dict({"time": 1000.0, "perf_counter": 10.0, "monotonic": 20.0})
    clock.pause()
    shown = clock.state_dict()
    clock.save_state(tmp_path / "time")
    assert [file.name for file in tmp_path.iterdir()] == ["time.tree"]

    later = TimeController()
    later.pause()
    later.load_state(tmp_path / "time")
    assert later.state_dict() == pytest.approx(shown, abs=1e-6)
    assert later.is_paused()
    later.resume()
    assert later.time() < 1100


@pytest.mark.parametrize("state", [{}, {"time": "noon", "perf_counter": 1.0, "monotonic": 1.0}])
def test_a_state_that_is_none_of_a_clock_is_refused_and_changes_nothing(
    clock: TimeController, state: dict[str, float]
) -> None:
    clock.pause()
    before = clock.state_dict()
    with pytest.raises(FormatError, match="clock"):
        clock.load_state_dict(state)
    assert clock.state_dict() == before


def test_the_module_is_one_clock() -> None:
    controller = time.get_global_time_controller()
    time.pause()
    try:
        assert controller.is_paused()
        assert time.time() == controller.time()
        assert time.fixed_time() == pytest.approx(system_time.time(), abs=1)
    finally:
        time.resume()
    assert pickle.loads(pickle.dumps(time.state_dict())).keys() == {"time", "perf_counter", "monotonic"}


def test_the_module_exports_what_it_says() -> None:
    assert sorted(time.__all__) == time.__all__
    assert all(hasattr(time, name) for name in time.__all__)
