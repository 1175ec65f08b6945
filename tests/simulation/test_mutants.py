"""The simulation finds mistakes: steps of the protocol that are dropped or moved make some schedule fail.

Mistakes that need three processes in one exact order are left to the model of the protocol (``tests/protocol``), which
tries all orders: of these the simulation finds one in tens of thousands of schedules.
"""

from __future__ import annotations

import pytest

from tests.profiles import rounds
from tests.simulation.mutants import MUTANTS
from tests.simulation.runner import simulate

SCHEDULES = rounds(short=400, long=20_000)
QUICK = {
    "there is no session",
    "the manifest is put after the marker",
    "the session goes before the marker is put",
}
"""Found by one of the first schedules; the others take up to some thousand."""


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mutant_changes_the_code(mutant: str) -> None:
    """In the short profile as well, so that no change of the code makes one of them stale."""
    compile(MUTANTS[mutant].source(), mutant, "exec")


@pytest.mark.parametrize(
    "mutant", [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.long]) for name in MUTANTS]
)
def test_a_mistake_is_found(mutant: str) -> None:
    report = simulate(0, SCHEDULES, mutant=mutant)
    assert not report.is_clean
    last_lines = report.output.splitlines()[-2:]
    assert last_lines[0].startswith("seed "), report.output
    print(*last_lines, sep="\n")
