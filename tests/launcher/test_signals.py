"""Signals, in processes that really receive them."""

from __future__ import annotations

import signal
import subprocess
import sys
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
        assert process.wait(timeout=60) == 0
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


def test_a_second_ctrl_c_interrupts() -> None:
    with StopSignals() as signals:
        signal.raise_signal(signal.SIGINT)
        assert signals.received == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
