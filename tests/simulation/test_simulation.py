"""The real code under schedules that follow from seeds: several writers, readers, pruners, pinners and copiers at once,
faults, deaths, wrong clocks. See :mod:`tests.simulation.schedule`."""

from __future__ import annotations

import os
import re

import pytest

from tests.profiles import rounds
from tests.simulation.runner import simulate

SCHEDULES = rounds(short=1000, long=100_000)
# The seeds go on from here: another number tries other schedules.
FIRST = int(os.environ.get("STATEVAULT_SIMULATION_FIRST_SEED", "0"))
JOBS = os.cpu_count() or 1

REACHED = (
    *("save", "save_on", "save_twice", "load_latest", "load_one", "verify", "states", "pin", "unpin"),
    *("remove_newest", "keep_newest", "give_up", "collect", "copy", "dies", "lands late"),
    *("SaveFencedError", "StatePrunedError", "PinConflictError", "StorageError", "StorageTimeoutError"),
)


@pytest.mark.timeout(4 * 3600)
def test_no_schedule_breaks_an_invariant() -> None:
    report = simulate(FIRST, FIRST + SCHEDULES, jobs=JOBS)
    print(report.output)
    assert report.is_clean, f"see the end of:\n{report.output}"
    # Nor is it clean because nothing happened.
    missing = [what for what in REACHED if not re.search(rf"\b{what} \d", report.output)]
    assert not missing


def test_a_seed_gives_the_same_schedule_again() -> None:
    mutant = "the fences are not looked at"
    found = simulate(0, 2000, mutant=mutant)
    assert not found.is_clean
    *_, what, replay = found.output.splitlines()
    seed = int(re.findall(r"--seeds (\d+)", replay)[0])
    assert what.startswith(f"seed {seed}: ")
    # Alone, in another process: step by step the same.
    assert simulate(seed, seed + 1, mutant=mutant).output == found.output
