"""Agents in a thread that outlives the main thread, when Python's own pools take no more work."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from statevault.state_persistence import StateStore
from tests.launcher.agent import Parts

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("when", ["late", "early", "no-threads"])
def test_the_final_state_is_saved_and_retention_goes_on(when: str, tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.launcher.run_late", when, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    assert ended.stderr == ""
    word, steps = ended.stdout.split()
    assert word == "returned"
    parts = Parts()
    with StateStore(tmp_path) as store:
        assert len(store.states()) <= 2
        newest = store.latest()
        assert newest is not None
        assert newest.metadata == {"exit": "clean"}
        store.register("interaction", parts.interaction)
        store.load_state("latest", components=["interaction"])
    assert parts.agent.steps == int(steps)
