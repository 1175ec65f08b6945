"""Whether the protocol of ``docs/format.md`` holds, in every interleaving, and what each of its steps is for.

:mod:`tests.protocol.test_conformance` checks that statevault does what is modelled here. With ``-s`` one sees how many
states were visited, and how long each counterexample is.
"""

from __future__ import annotations

from dataclasses import asdict

import pytest

from tests.profiles import is_long, rounds
from tests.protocol.explorer import Exploration
from tests.protocol.mutant_pruners import ClearsBases, ListsPinsFirst, SheltersOwnFolderOfBase, WithoutAbort
from tests.protocol.mutants import HARMLESS, MUTANTS, Mutant
from tests.protocol.protocol import Scenario
from tests.protocol.pruner import Pruner
from tests.protocol.scenarios import CROWDS, LARGE, SMALL, WIPED, WIPED_LARGE


def report(found: Exploration) -> str:
    """A counterexample to read, or nothing."""
    print(f"\n{found.states} states", end=" ")
    return "" if found.violation is None else "\n".join((*found.trace, found.violation))


@pytest.mark.parametrize(
    "scenario", [*SMALL.values(), *WIPED.values()], ids=[*SMALL, *(f"wipe: {name}" for name in WIPED)]
)
def test_no_interleaving_breaks_the_protocol(scenario: Scenario) -> None:
    assert report(scenario.explore()) == ""


@pytest.mark.long
@pytest.mark.skipif(not is_long(), reason="minutes: make test-long")
@pytest.mark.parametrize(
    "scenario", [*LARGE.values(), *WIPED_LARGE.values()], ids=[*LARGE, *(f"wipe: {name}" for name in WIPED_LARGE)]
)
def test_no_interleaving_of_many_breaks_the_protocol(scenario: Scenario) -> None:
    assert report(scenario.explore()) == ""


@pytest.mark.parametrize("crowd", CROWDS.values(), ids=CROWDS)
def test_no_walk_of_a_crowd_breaks_the_protocol(crowd: Scenario) -> None:
    assert report(crowd.wander(walks=rounds(short=1000, long=20_000), seed=1)) == ""


@pytest.mark.parametrize(
    "mutation",
    [
        WithoutAbort,
        ClearsBases,
        *(pytest.param(name, marks=pytest.mark.long) for name in (ListsPinsFirst, SheltersOwnFolderOfBase)),
    ],
)
def test_walks_of_a_crowd_find_a_prune_that_breaks_the_protocol(mutation: type[Pruner]) -> None:
    actors = {
        name: mutation(**asdict(actor)) if isinstance(actor, Pruner) else actor
        for name, actor in CROWDS["from one state"].actors.items()
    }
    found = Scenario(actors, tidies=None).wander(walks=40_000, seed=1)
    print(f"\n{found.states} states, {len(found.trace)} steps: {found.violation}", end=" ")
    assert found.violation is not None


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS)
def test_no_step_can_be_dropped_or_moved(mutant: Mutant) -> None:
    found = mutant.scenario.explore()
    print(f"\n{found.states} states, {len(found.trace)} steps: {found.violation}", end=" ")
    assert found.violation is not None
    assert mutant.shows in found.violation


@pytest.mark.parametrize("scenario", HARMLESS.values(), ids=HARMLESS)
def test_some_steps_could_be_done_otherwise(scenario: Scenario) -> None:
    assert report(scenario.explore()) == ""
