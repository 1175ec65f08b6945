"""Which states a spool drops: a pure function, compared with what it promises."""

from __future__ import annotations

from collections.abc import Callable, Collection
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from statevault.state_persistence.spool.thinning import SpooledState, states_to_drop


def count(names: Collection[str]) -> int:
    """Sizes where each state needs one byte."""
    return len(names)


def spooled(*sequences: int, done: Collection[int] = (), protected: Collection[int] = ()) -> list[SpooledState]:
    return [
        SpooledState(str(sequence), sequence, is_done=sequence in done, is_protected=sequence in protected)
        for sequence in sequences
    ]


@st.composite
def spools(draw: st.DrawFn) -> tuple[list[SpooledState], Callable[[Collection[str]], int]]:
    """A spool whose states have chunks of their own and share some."""
    sequences = sorted(draw(st.sets(st.integers(1, 99), min_size=1, max_size=20)))
    states = [SpooledState(str(number), number, draw(st.booleans()), draw(st.booleans())) for number in sequences]
    chunks = {state.name: draw(st.sets(st.integers(0, 15), max_size=5)) for state in states}

    def size_of(names: Collection[str]) -> int:
        return len(set().union(*(chunks[name] for name in names)))

    return states, size_of


@given(spools(), st.integers(0, 15))
def test_what_stays_fits_or_may_not_go(
    spool: tuple[list[SpooledState], Callable[[Collection[str]], int]], max_bytes: int
) -> None:
    states, size_of = spool
    dropped = states_to_drop(states, size_of, max_bytes)
    stays = [state for state in states if state.name not in dropped]
    assert len(set(dropped)) == len(dropped)
    assert states[-1] in stays
    assert all(state in stays for state in states if state.is_protected)
    if size_of([state.name for state in stays]) > max_bytes:
        assert all(state.is_protected for state in stays[:-1])


@given(spools(), st.integers(0, 15))
def test_no_state_is_dropped_that_fits(
    spool: tuple[list[SpooledState], Callable[[Collection[str]], int]], max_bytes: int
) -> None:
    states, size_of = spool
    dropped = states_to_drop(states, size_of, max_bytes)
    if dropped:
        before_the_last = [state.name for state in states if state.name not in dropped[:-1]]
        assert size_of(before_the_last) > max_bytes


@given(spools(), st.integers(0, 15))
def test_what_waits_goes_only_after_all_that_is_replicated(
    spool: tuple[list[SpooledState], Callable[[Collection[str]], int]], max_bytes: int
) -> None:
    states, size_of = spool
    dropped = states_to_drop(states, size_of, max_bytes)
    done = {state.name for state in states if state.is_done}
    lost = [name for name in dropped if name not in done]
    assert dropped[: len(dropped) - len(lost)] == [name for name in dropped if name in done]
    if lost:
        assert all(state.name in dropped for state in states[:-1] if state.is_done and not state.is_protected)


def test_replicated_states_go_oldest_first() -> None:
    assert states_to_drop(spooled(1, 2, 3, 4, done=(1, 2, 3)), count, 2) == ["1", "2"]


def test_an_outage_is_thinned_evenly_and_not_from_one_end() -> None:
    assert states_to_drop(spooled(*range(1, 10)), count, 5) == ["2", "4", "6", "8"]


def test_the_oldest_goes_when_only_it_and_the_newest_are_left() -> None:
    assert states_to_drop(spooled(1, 2, 3), count, 1) == ["2", "1"]


@given(st.integers(3, 12), st.integers(1, 150))
def test_a_long_outage_leaves_no_large_gap(room: int, saves: int) -> None:
    kept: list[SpooledState] = []
    for sequence in range(1, saves + 1):
        kept += spooled(sequence)
        dropped = states_to_drop(kept, count, room)
        kept = [state for state in kept if state.name not in dropped]
    assert len(kept) == min(room, saves)
    assert kept[0].sequence == 1
    assert kept[-1].sequence == saves
    gaps = [newer.sequence - older.sequence for older, newer in pairwise(kept)]
    even = (saves - 1) / max(1, room - 1)
    assert max(gaps, default=0) <= 2 * even + 2
