"""Signals, in processes that really receive them."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from statevault.launcher.signals import StopSignals
from statevault.state_persistence import StateStore
from tests.launcher.agent import Parts

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_agent_in_order_and_its_state_is_saved(tmp_path: Path, number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.launcher.run_agent", str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "acting\n"
        process.send_signal(number)
        word, steps = process.stdout.readline().split()
        assert process.wait(timeout=600) == 0
    assert word == "returned"
    parts = Parts()
    with StateStore(tmp_path) as store:
        (state,) = store.states()
        assert state.metadata == {"exit": "clean"}
        store.register("interaction", parts.interaction)
        store.load_state("latest", components=["interaction"])
    assert parts.agent.steps == int(steps)


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with StopSignals() as signals:
        signal.raise_signal(signal.SIGTERM)
        assert signals.received == "SIGTERM"
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, KeyboardInterrupt("a second SIGINT")), (signal.SIGTERM, SystemExit(143))]
)
def test_a_second_signal_breaks_off(number: signal.Signals, error: BaseException) -> None:
    with StopSignals(same_within_s=0.0) as signals:
        signal.raise_signal(signal.SIGTERM)
        assert (signals.received, signals.hurried) == ("SIGTERM", False)
        with pytest.raises(type(error)) as raised:
            signal.raise_signal(number)
        assert raised.value.args == error.args
        assert (signals.received, signals.hurried) == (number.name, True)


def test_a_signal_that_arrives_twice_at_once_is_one() -> None:
    # A terminal sends Ctrl-C to a wrapper and to what it runs, and the wrapper passes it on.
    with StopSignals(same_within_s=60.0) as signals:
        for _ in range(3):
            signal.raise_signal(signal.SIGINT)
        assert (signals.received, signals.hurried) == ("SIGINT", False)


# A marker is written by the publishing thread itself, an agent's file by one of an executor.
@pytest.mark.parametrize("key", ["_vault/sessions/", ".state/"])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 143)])
def test_a_second_signal_ends_a_process_whose_storage_hangs(key: str, number: signal.Signals, status: int) -> None:
    with hanging(key) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "acting\n"
        process.send_signal(number)
        assert process.stdout.readline() == "hanging\n"
        time.sleep(1.0)  # else both would be one
        process.send_signal(number)
        output, errors = process.communicate(timeout=600)
    assert "returned" not in output
    assert process.returncode == status
    assert f"the final state was not saved (this run has saved none before): a second {number.name}" in errors


def test_signals_end_a_process_whose_step_hangs() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.launcher.run_agent", "memory://states", "hang"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "acting\n"
            for _ in range(2):
                process.send_signal(signal.SIGTERM)
                time.sleep(1.0)  # else all would be one
            output, errors = process.communicate(timeout=600)
        finally:
            process.kill()
    assert "returned" not in output
    assert process.returncode == 143
    assert "the final state was not saved (this run has saved none before): a second SIGTERM" in errors


def test_a_final_save_that_hangs_is_given_up_when_its_time_is_over() -> None:
    with hanging(".state/", "timeout_for_final_save=1", "max_uptime=0.2") as process:
        _, errors = process.communicate(timeout=600)
    assert process.returncode == 1
    assert "the final state was not saved" in errors
    assert "SaveTimeoutError: publishing the final state to memory://states did not end within 1 s" in errors


def test_a_publish_that_hangs_keeps_the_final_state_from_being_saved_but_not_the_process_from_ending() -> None:
    with hanging(".state/", "timeout_for_final_save=1", "max_uptime=0.5", "save_state_interval=0.1") as process:
        _, errors = process.communicate(timeout=600)
    assert process.returncode == 1
    assert "SaveTimeoutError: publishing the state before the final one to memory://states did not end" in errors


def test_a_clean_up_that_hangs_is_left_behind() -> None:
    fields = ("timeout_for_final_save=1", "max_uptime=0.5", "save_state_interval=0.05", "max_keep_states=1")
    with hanging("_vault/tombstones/", *fields) as process:
        output, errors = process.communicate(timeout=600)
    assert output.split()[-1] == "returned"
    assert process.returncode == 0
    assert "retention failed" in errors


@contextmanager
def hanging(key: str, *fields: str) -> Iterator[subprocess.Popen[str]]:
    """An agent whose storage hangs when it is to write such a key."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.launcher.run_hanging", key, *fields],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()
