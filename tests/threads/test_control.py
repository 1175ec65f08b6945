"""The control thread with real workers and a real store."""

from __future__ import annotations

import logging
import random
import shutil
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import pytest

from statevault.errors import PauseTimeoutError
from statevault.state_persistence import PersistentStateMixin
from statevault.threads import Phase, ThreadPhase
from tests.threads.system import Drill, Keeper, System


def test_a_system_starts_acts_and_ends_in_order(tmp_path: Path) -> None:
    system = System(tmp_path)
    with system.running():
        system.until_acting()
        system.until(lambda: system.status.phase is Phase.ACTIVE)
        assert system.status.threads == {"training": ThreadPhase.RUNNING, "inference": ThreadPhase.RUNNING}
        names = {thread.name for thread in threading.enumerate()}
        assert {"statevault-inference", "statevault-training"} <= names
    assert system.error is None
    assert system.status.phase is Phase.STOPPED
    assert set(system.status.threads.values()) == {ThreadPhase.STOPPED}
    assert system.control.at_rest
    assert system.agent.events == ["setup", "teardown"]


def test_a_pause_holds_threads_and_clock_until_it_is_resumed(tmp_path: Path) -> None:
    drill = Drill(work=10**9)
    system = System(tmp_path, trainers={"drill": drill})
    with system.running():
        system.until_acting()
        system.control.request_pause()
        system.until(lambda: system.status.phase is Phase.PAUSED)
        held = (system.agent.steps, drill.asked, system.clock.time())
        time.sleep(0.05)
        assert (system.agent.steps, drill.asked, system.clock.time()) == held
        system.control.request_resume()
        system.until_acting()
        system.until(lambda: system.status.phase is Phase.ACTIVE)
        assert system.clock.time() > held[2]
        assert drill.asked > held[1]
    assert system.agent.events == ["setup", "paused", "resumed", "teardown"]
    assert drill.events == ["paused", "resumed"]


def test_a_paused_system_can_be_shut_down(tmp_path: Path) -> None:
    system = System(tmp_path)
    with system.running():
        system.control.request_pause()
        system.until(lambda: system.status.phase is Phase.PAUSED)
    assert system.status.phase is Phase.STOPPED


def test_the_agent_acts_on_until_a_training_step_has_ended(tmp_path: Path) -> None:
    drill = Drill(work=10**9)
    system = System(tmp_path, trainers={"drill": drill})
    with system.running():
        system.until_acting()
        drill.gate.clear()
        system.until(drill.at_gate.is_set)
        system.control.request_pause()
        system.until(lambda: system.status.phase is Phase.PAUSING)
        system.until_acting()
        drill.gate.set()
        system.until(lambda: system.status.phase is Phase.PAUSED)


def test_a_pause_that_takes_too_long_is_given_up_and_the_agent_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    drill = Drill(work=10**9)
    system = System(
        tmp_path,
        trainers={"drill": drill},
        timeout_for_all_threads_pause=0.03,
        max_attempts_to_pause_all_threads=2,
    )
    with system.running(), caplog.at_level(logging.WARNING):
        system.until_acting()
        drill.gate.clear()
        system.until(drill.at_gate.is_set)
        system.control.request_save()
        system.until(lambda: system.status.pause_timeouts == 1)
        system.until_acting()
        assert system.status.saves.saves == 0
        drill.gate.set()
        system.control.request_save()
        system.until(lambda: system.status.saves.saves == 1)
    assert system.error is None
    assert "attempt 2 of 2" in caplog.text
    assert "the threads ['training'] did not reach a step boundary within 2 x 0.03 s" in caplog.text


def test_a_save_takes_a_cut_and_the_agent_goes_on(tmp_path: Path) -> None:
    system = System(tmp_path)
    with system.running():
        system.until_acting()
        system.control.request_save()
        system.until(lambda: system.status.saves.last_size_bytes is not None)
        system.until_acting()
    saves = system.status.saves
    assert (saves.saves, saves.failures, saves.last_error, saves.pending) == (1, 0, "", False)
    assert saves.last_duration_s is not None
    assert saves.last_stall_s is not None
    assert 0 < saves.last_stall_s <= saves.last_duration_s + saves.last_stall_s
    (state,) = system.store.states()
    assert state.name == saves.last_name
    assert state.size == saves.last_size_bytes

    loaded = System(tmp_path)
    loaded.store.load_state("latest")
    assert 0 < loaded.agent.steps < system.agent.steps


def test_a_condition_that_holds_saves_again_and_again(tmp_path: Path) -> None:
    keeper = Keeper()
    system = System(tmp_path, condition=lambda: True, cleanup=keeper)
    with system.running():
        system.until(lambda: system.status.saves.saves >= 3)
    # All but the last publish, which the end of the test may have overtaken, were cleaned up after.
    assert keeper.calls == [state.name for state in system.store.states()][: len(keeper.calls)]
    assert len(keeper.calls) >= 3


def test_a_paused_system_saves_when_asked_but_not_by_itself(tmp_path: Path) -> None:
    hold = [False]
    system = System(tmp_path, condition=lambda: hold[0])
    with system.running():
        system.control.request_pause()
        system.until(lambda: system.status.phase is Phase.PAUSED)
        hold[0] = True
        time.sleep(0.2)
        assert system.status.saves.saves == 0
        system.control.request_save()
        system.until(lambda: system.status.saves.saves == 1)
        assert system.status.phase is Phase.PAUSED
        hold[0] = False


def test_a_snapshot_that_fails_is_counted_and_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    system = System(tmp_path)
    with system.running():
        system.agent.fail_to_save = True
        system.control.request_save()
        system.until(lambda: system.status.saves.failures == 1)
        assert "the pen is broken" in system.status.saves.last_error
        system.until_acting()
        system.agent.fail_to_save = False
        system.control.request_save()
        system.until(lambda: system.status.saves.saves == 1)
    assert system.error is None
    assert "the snapshot failed" in caplog.text


def test_a_publish_that_fails_is_counted_and_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "states"
    system = System(root)
    with system.running():
        root.write_text("in the way")
        system.control.request_save()
        system.until(lambda: system.status.saves.failures == 1)
        system.until_acting()
        assert system.status.saves.saves == 0
        root.unlink()
        system.control.request_save()
        system.until(lambda: system.status.saves.saves == 1)
    assert system.error is None
    assert "the publish failed" in caplog.text
    shutil.rmtree(root)


def test_a_condition_that_fails_is_counted_and_does_not_fill_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def condition() -> bool:
        raise LookupError("no calendar")

    system = System(tmp_path, condition=condition)
    with system.running():
        system.until(lambda: system.status.saves.failures >= 3)
        system.until_acting()
    assert caplog.text.count("the condition for saving failed") == 1


def test_retention_that_fails_is_counted_and_saves_go_on(tmp_path: Path) -> None:
    def cleanup(path: object) -> None:
        raise OSError(f"can't remove anything for {path}")

    system = System(tmp_path, cleanup=cleanup)
    with system.running():
        for count in (1, 2):
            system.control.request_save()
            system.until(lambda count=count: system.status.saves.saves == count)  # type: ignore[misc]
        system.control.request_save()
        system.until(lambda: system.status.saves.cleanup_failures >= 2)
        assert "retention failed" in system.status.saves.last_error
    assert system.error is None


def test_an_error_of_the_agent_ends_the_system_and_reaches_the_caller(tmp_path: Path) -> None:
    system = System(tmp_path, trainers={"drill": Drill(work=10**9)})
    system.agent.fail_at = 5
    with system.running():
        system.join()
    assert isinstance(system.error, ZeroDivisionError)
    assert "the agent fell over" in "".join(traceback.format_exception(system.error))
    assert "in step" in "".join(traceback.format_exception(system.error))
    assert system.status.phase is Phase.FAILED
    assert system.status.threads == {"training": ThreadPhase.STOPPED, "inference": ThreadPhase.FAILED}
    assert system.control.at_rest
    assert system.agent.events == ["setup", "teardown"]


def test_an_error_of_a_trainer_ends_the_system_and_reaches_the_caller(tmp_path: Path) -> None:
    drill = Drill()
    system = System(tmp_path, trainers={"drill": drill})
    with system.running():
        system.until_acting()
        drill.fail = True
        system.join()
    assert isinstance(system.error, ValueError)
    assert system.agent.events == ["setup", "teardown"]


def test_the_first_of_two_errors_is_raised_and_names_the_second(tmp_path: Path) -> None:
    system = System(tmp_path)
    system.agent.fail_at = 3

    def broken_teardown() -> None:
        error = OSError("the door is stuck")
        error.add_note("it opens outwards")
        raise error

    system.agent.teardown = broken_teardown  # type: ignore[method-assign]
    with system.running():
        system.join()
    assert isinstance(system.error, ZeroDivisionError)
    assert "the door is stuck" in system.error.__notes__[0]
    assert "it opens outwards" in system.error.__notes__[0]


def test_an_error_in_setup_ends_the_system_and_tears_down(tmp_path: Path) -> None:
    system = System(tmp_path)

    def broken_setup() -> None:
        raise OSError("no camera")

    system.agent.setup = broken_setup  # type: ignore[method-assign]
    with system.running():
        system.join()
    assert isinstance(system.error, OSError)
    assert system.agent.events == ["teardown"]


def test_a_thread_that_hangs_at_the_end_is_named_and_left_behind(tmp_path: Path) -> None:
    system = System(tmp_path, timeout_for_all_threads_pause=0.05, max_attempts_to_pause_all_threads=2)
    system.start()
    system.until_acting()
    system.agent.gate.clear()
    system.until(system.agent.at_gate.is_set)
    system.control.request_shutdown()
    system.join()
    assert isinstance(system.error, PauseTimeoutError)
    assert "['inference'] did not end within 0.1 s" in str(system.error)
    assert not system.control.at_rest
    system.agent.gate.set()
    system.until(lambda: system.control.at_rest)
    system.supervisor.close()
    system.store.close()


def test_the_system_ends_when_its_uptime_is_over(tmp_path: Path) -> None:
    system = System(tmp_path, max_uptime=0.1)
    with system.running():
        system.join()
        assert system.status.uptime_s >= 0.1
    assert system.status.phase is Phase.STOPPED


def test_a_sleeping_agent_is_woken_at_the_end(tmp_path: Path) -> None:
    system = System(tmp_path)
    system.agent.step = lambda _: int(system.clock.sleep(10_000))  # type: ignore[method-assign,assignment]
    with system.running():
        system.until(lambda: system.status.phase is Phase.ACTIVE)
    assert system.error is None


def test_an_idle_system_sleeps(tmp_path: Path) -> None:
    drill = Drill(work=0)
    system = System(tmp_path, trainers={"drill": drill})
    system.agent.gate.clear()
    with system.running():
        system.until(lambda: system.status.phase is Phase.ACTIVE)
        asked, began = drill.asked, time.process_time()
        time.sleep(1.0)
        busy_s = time.process_time() - began
        # A generous bound, in CPU time: a busy loop would take the whole second.
        assert busy_s < 0.2
        assert drill.asked - asked < 200


def test_trainers_run_in_turn(tmp_path: Path) -> None:
    first, second = Drill(work=50), Drill(work=50)
    system = System(tmp_path, trainers={"first": first, "second": second})
    with system.running():
        system.until(lambda: first.trained == second.trained == 50)
    assert abs(first.asked - second.asked) <= 1


def test_step_times_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="statevault.threads.inference"):
        system = System(tmp_path)
        with system.running():
            system.until_acting()
    assert "s on average, standard deviation" in caplog.text


def test_a_worker_that_was_never_started_is_not_joined(tmp_path: Path) -> None:
    system = System(tmp_path)
    assert system.control.at_rest
    for worker in system.control._workers:
        assert worker.join(0.0)
    system.supervisor.close()
    system.store.close()


def test_no_snapshot_is_taken_while_a_step_is_under_way(tmp_path: Path) -> None:
    """Pauses, saves and resumes asked for by several threads at random, with the threads as busy as can be."""
    drill = Drill(work=10**9)
    system = System(tmp_path, trainers={"drill": drill}, condition=lambda: True)
    under_way: set[str] = set()
    torn: list[set[str]] = []

    def watched(name: str, call: Any) -> Any:
        def step(*args: Any) -> Any:
            under_way.add(name)
            try:
                return call(*args)
            finally:
                under_way.discard(name)

        return step

    system.agent.step = watched("agent", system.agent.step)  # type: ignore[method-assign]
    drill.train = watched("drill", drill.train)  # type: ignore[method-assign]

    class Witness(PersistentStateMixin):
        def save_state(self, path: Path) -> None:
            if under_way or not system.clock.is_paused():
                torn.append(set(under_way))
            time.sleep(0.002)
            if under_way:
                torn.append(set(under_way))

    system.store.register("witness", Witness())

    def ask(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(100):
            control = system.control
            rng.choice([control.request_pause, control.request_resume, control.request_save])()
            time.sleep(rng.random() * 0.01)

    with system.running():
        askers = [threading.Thread(target=ask, args=(seed,)) for seed in range(3)]
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join()
        system.control.request_resume()
        system.until_acting()
        assert system.status.saves.saves >= 3
        assert system.status.saves.failures == 0
    assert torn == []
    assert system.error is None


def test_a_publish_that_is_under_way_at_the_end_is_waited_for(tmp_path: Path) -> None:
    keeper = Keeper()
    system = System(tmp_path, cleanup=keeper)
    system.supervisor.take_snapshot()
    assert system.status.saves.pending
    system.supervisor.close()
    assert (system.status.saves.saves, system.status.saves.pending) == (1, False)
    assert keeper.calls == [system.status.saves.last_name]
    assert system.status.saves.last_size_bytes is not None
    system.store.close()
