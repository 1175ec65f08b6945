"""What the supervisor does behind the agent's back, and how long it waits at the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override

from statevault.errors import SaveTimeoutError
from statevault.state_persistence import StateStore
from statevault.storage import Body
from statevault.threads import SavePhase, SaveSupervisor
from tests.state_persistence.storages import DictStorage
from tests.threads.system import LIMIT_S, Keeper, System


class Gate(DictStorage):
    """A storage that takes nothing while its gate is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open = threading.Event()
        self.open.set()

    @override
    def put(self, key: str, body: Body, *, create_only: bool = False) -> int:
        assert self.open.wait(LIMIT_S)
        return super().put(key, body, create_only=create_only)


@contextmanager
def supervised(**options: Any) -> Iterator[tuple[SaveSupervisor, Gate]]:
    """A supervisor of a store that may hang, and is opened at the end."""
    gate = Gate()
    with StateStore(gate) as store:
        supervisor = SaveSupervisor(store, **options)
        try:
            yield supervisor, gate
        finally:
            gate.open.set()
            supervisor.close()


# -- cleaning up


def test_retention_that_failed_is_tried_again_at_the_interval_though_nothing_is_saved(tmp_path: Path) -> None:
    keeper = Keeper()
    keeper.error = OSError("no permission")
    system = System(tmp_path, cleanup=keeper, cleanup_interval_s=0.02)
    with system.running():
        system.control.request_save()
        system.until(lambda: system.status.saves.cleanup_failures >= 3)
        keeper.error = None
        done = len(keeper.calls)
        system.until(lambda: len(keeper.calls) > done + 1)  # the first of them may have begun before
        failures = system.status.saves.cleanup_failures
        done = len(keeper.calls)
        system.until(lambda: len(keeper.calls) > done + 2)
        assert system.status.saves.cleanup_failures == failures
    assert system.status.saves.saves == 1
    assert keeper.calls[0] == system.status.saves.last_name
    assert set(keeper.calls[1:]) == {None}


def test_retention_runs_again_at_the_interval_as_states_grow_old_by_themselves(tmp_path: Path) -> None:
    keeper = Keeper()
    system = System(tmp_path, cleanup=keeper, cleanup_interval_s=0.01)
    with system.running():
        for count in (1, 2):
            system.control.request_save()
            system.until(lambda count=count: keeper.calls.count(None) >= 3 * count)  # type: ignore[misc]
    assert [name for name in keeper.calls if name is not None] == [state.name for state in system.store.states()]


def test_retention_that_fails_each_time_is_logged_once_a_minute_though_saves_succeed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keeper = Keeper()
    keeper.error = SystemExit(1)  # whatever a keeper may do, its thread goes on
    system = System(tmp_path, cleanup=keeper)
    with system.running():
        for count in (1, 2, 3):
            system.control.request_save()
            system.until(lambda count=count: system.status.saves.cleanup_failures == count)  # type: ignore[misc]
        assert caplog.text.count("retention failed; the agent goes on") == 1
    assert system.status.saves.saves == 3


def test_saves_that_fail_now_and_then_are_logged_once_a_minute_as_well(caplog: pytest.LogCaptureFixture) -> None:
    class Pen:
        breaks = False

        def save_state(self, path: Path) -> None:
            if self.breaks:
                raise OSError("the pen is broken")
            path.write_text("whole")

        def load_state(self, path: Path) -> None:
            raise NotImplementedError

    pen = Pen()
    with StateStore("memory://pens") as store:
        store.register("pen", pen)
        supervisor = SaveSupervisor(store)
        for number in range(6):
            pen.breaks = bool(number % 2)
            supervisor.take_snapshot()
            store.wait()
            assert not supervisor.is_wanted()  # which looks what became of it
        assert (supervisor.status.saves, supervisor.status.failures) == (3, 3)
        supervisor.close()
    assert caplog.text.count("no state was saved: the snapshot failed; the agent goes on") == 1


def test_retention_follows_each_state_in_order_the_final_one_too() -> None:
    keeper = Keeper()
    with supervised(cleanup=keeper) as (supervisor, _):
        supervisor.take_snapshot()
        last = supervisor.save_final({})
        supervisor.close()
        assert keeper.calls[-1] == last.name
        assert len(keeper.calls) == 2
        assert supervisor.status.size_bytes == 0  # of two states without components
        assert supervisor.status.last_size_bytes == 0


def test_a_retention_that_hangs_is_left_behind_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    go_on = threading.Event()
    with supervised(cleanup=lambda path: go_on.wait(LIMIT_S), final_timeout_s=0.3) as (supervisor, _):
        supervisor.save_final({})
        supervisor.close()
        assert supervisor.status.cleanup_failures == 1
        assert supervisor.seconds_left == 0
        go_on.set()
    assert "retention failed: removing the states that are not to be kept did not end within 0.3 s" in caplog.text


# -- the end


def test_a_final_save_that_fails_does_not_say_that_the_agent_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    system = System(tmp_path)
    system.agent.fail_to_save = True
    with pytest.raises(OSError, match="the pen is broken"):
        system.supervisor.save_final({})
    system.supervisor.close()
    system.store.close()
    assert "the final state was not saved (this run has saved none before): the pen is broken" in caplog.text
    assert "goes on" not in caplog.text


def test_a_final_save_that_hangs_ends_when_its_time_is_over_and_says_what_is_lost(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with supervised(final_timeout_s=0.2) as (supervisor, gate):
        supervisor.take_snapshot()
        while supervisor.status.saves == 0:
            supervisor.is_wanted()
            time.sleep(0.001)
        gate.open.clear()
        wanted = supervisor.request()
        with pytest.raises(SaveTimeoutError, match=r"publishing the final state to dict:// did not end within 0\.2 s"):
            supervisor.save_final({})
        assert supervisor.status.failures == 1
        report = supervisor.log.get(wanted.id)
        assert report is not None
        assert report.phase is SavePhase.FAILED
        assert f"the newest that this run has saved is {supervisor.status.last_name}" in caplog.text


def test_a_publish_that_hangs_is_left_behind_when_the_time_is_over(caplog: pytest.LogCaptureFixture) -> None:
    with supervised(final_timeout_s=0.2) as (supervisor, gate):
        gate.open.clear()
        supervisor.take_snapshot()
        (report,) = supervisor.log.recent(1)
        supervisor.close()
        assert (supervisor.status.failures, supervisor.status.pending) == (1, False)
        told = supervisor.log.get(report.id)
        assert told is not None
        assert told.phase is SavePhase.FAILED
    left_behind = "the last state was left behind (this run has saved none before): "
    assert f"{left_behind}publishing the last state to dict:// did not end within 0.2 s" in caplog.text


def test_whoever_waits_is_told_for_what_and_of_the_last_error(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> bool:
        raise LookupError("no calendar")

    with supervised(condition=broken, report_interval_s=0.05) as (supervisor, gate):
        assert not supervisor.is_due()
        gate.open.clear()
        threading.Timer(0.3, gate.open.set).start()
        supervisor.save_final({})
    assert "still publishing the final state to dict:// (the last error: the condition for saving failed" in caplog.text


def test_after_a_broken_wait_nothing_is_waited_for() -> None:
    with supervised() as (supervisor, gate):
        gate.open.clear()
        supervisor.take_snapshot()
        supervisor.forgo_final(KeyboardInterrupt("a second SIGINT"))
        supervisor.close()  # else for an hour
        assert "broken off" in supervisor.status.last_error
