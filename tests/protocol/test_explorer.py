"""The model checker itself: that it goes everywhere, and finds what is known to be there, by a shortest way."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.protocol.explorer import AnyOf, Call, Choose, Claim, Key, Program, Store, System, Task, run_alone, then
from tests.protocol.store import (
    Find,
    Put,
    all_that_lands,
    landings,
    marker,
    objects_of,
    tombstone,
    visible_once,
)


def anything_goes(store: Store, claims: Sequence[Claim | None]) -> None:
    """No invariant."""


def puts(kind: str, number: int) -> Program:
    """So many steps."""
    for index in range(number):
        yield Put(Key(kind, str(index)))
    return then(None)


def counts(by: int) -> Program:
    """Raises a counter: in two steps, not in one."""
    before = max(key.content for key in (yield Find("counter")))
    yield Put(Key("counter", "", before + by))
    return then(None, claim=Claim("counted", ""))


def decides() -> Program:
    """Puts one of two objects."""
    chosen = yield Choose(("left", "right"))
    yield Put(Key("chosen", chosen))
    return then(None)


def test_two_processes_that_share_nothing_pass_through_every_pair_of_their_steps() -> None:
    tasks = {"a": Task(puts, ("a", 3)), "b": Task(puts, ("b", 4))}
    assert System(frozenset(), tasks, landings, anything_goes).explore().states == 4 * 5


def test_what_is_private_takes_no_steps() -> None:
    tasks = {"a": Task(puts, ("a", 3)), "b": Task(puts, ("b", 4))}
    found = System(frozenset(), tasks, landings, anything_goes, frozenset({"b"})).explore()
    assert found.states == 4


def test_a_lost_update_is_found_by_a_shortest_trace() -> None:
    def both_count(store: Store, claims: Sequence[Claim | None]) -> str | None:
        counter = max(key.content for key in store)
        return f"counted to {counter}" if all(claims) and counter != 3 else None

    tasks = {"one": Task(counts, (1,)), "two": Task(counts, (2,))}
    found = System(frozenset({Key("counter", "", 0)}), tasks, landings, both_count).explore()
    assert found.violation in ("counted to 1", "counted to 2")
    assert len(found.trace) == 4
    assert {line.partition(":")[0] for line in found.trace[:2]} == {"one", "two"}
    assert found.trace[-1].endswith("=> counted")


def test_a_violation_at_the_start_has_no_trace() -> None:
    found = System(frozenset(), {}, landings, lambda store, claims: "always").explore()
    assert (found.violation, found.trace) == ("always", ())


def test_every_choice_is_made() -> None:
    reached: set[Store] = set()

    def remember(store: Store, claims: Sequence[Claim | None]) -> None:
        reached.add(store)

    System(frozenset(), {"a": Task(decides)}, landings, remember).explore()
    assert reached == {frozenset(), frozenset({Key("chosen", "left")}), frozenset({Key("chosen", "right")})}


def test_calls_at_the_same_time_are_answered_in_every_order() -> None:
    def puts_all(left: frozenset[str]) -> Program:
        first, answered = yield AnyOf({name: Put(Key("put", name)) for name in sorted(left)})
        assert answered
        return then(puts_all if len(left) > 1 else None, *([left - {first}] if len(left) > 1 else []))

    reached: set[Store] = set()

    def remember(store: Store, claims: Sequence[Claim | None]) -> None:
        reached.add(store)

    task = Task(puts_all, (frozenset("abc"),))
    assert System(frozenset(), {"a": task}, landings, remember).explore().states == 8
    assert {"".join(sorted(key.state for key in store)) for store in reached} == {
        *("", "a", "b", "c", "ab", "ac", "bc", "abc")
    }
    orders = set()
    for choice in range(6):
        calls: list[Call] = []
        run_alone(frozenset(), task, called=calls.append, choice=choice)
        orders.add(tuple(map(str, calls)))
    assert len(orders) == 6


def test_a_put_without_an_answer_lands_now_or_later_or_never() -> None:
    def put() -> Program:
        answered = yield Put(tombstone("S"), unsure=True)
        return then(None, claim=Claim("put" if answered else "unsure", "S"))

    reached: set[tuple[Store, str]] = set()

    def remember(store: Store, claims: Sequence[Claim | None]) -> None:
        reached.add((all_that_lands(store), claims[0].what if claims[0] else ""))
        reached.add((store, claims[0].what if claims[0] else ""))

    System(frozenset(), {"a": Task(put)}, landings, remember).explore()
    there, late = frozenset({tombstone("S")}), frozenset({Key("late", "S", tombstone("S"))})
    nothing: Store = frozenset()
    assert reached == {(nothing, ""), (there, "put"), (there, "unsure"), (nothing, "unsure"), (late, "unsure")}


def test_a_process_that_runs_alone_takes_the_calm_outcomes() -> None:
    store, claim = run_alone(frozenset({Key("counter", "", 4)}), Task(counts, (1,)))
    assert store == {Key("counter", "", 4), Key("counter", "", 5)}
    assert claim == Claim("counted", "")
    assert run_alone(frozenset(), Task(decides))[0] == {Key("chosen", "left")}


@pytest.mark.parametrize("dead", [False, True])
def test_it_is_noted_when_a_state_becomes_visible(dead: bool) -> None:
    ((after, _),) = Put(marker("S", objects_of("S"))).outcomes(frozenset({tombstone("S")} if dead else ()))
    assert (visible_once("S") in after) is not dead


def test_a_walk_ends_and_passes_through_states_that_can_be_reached() -> None:
    tasks = {"a": Task(puts, ("a", 3)), "b": Task(puts, ("b", 4))}
    assert System(frozenset(), tasks, landings, anything_goes).wander(walks=1, seed=1).states >= 7
    assert System(frozenset(), tasks, landings, anything_goes).wander(walks=500, seed=1).states == 4 * 5 - 1


def test_walks_find_a_violation_and_tell_how() -> None:
    def never_three(store: Store, claims: Sequence[Claim | None]) -> str | None:
        return "three" if len(store) == 3 else None

    found = System(frozenset(), {"a": Task(puts, ("a", 5))}, landings, never_three).wander(walks=1, seed=1)
    assert found.violation == "three"
    assert [line.split(" -> ")[0] for line in found.trace] == ["a: PUT a(0)", "a: PUT a(1)", "a: PUT a(2)"]


def test_too_many_states_are_an_error() -> None:
    with pytest.raises(AssertionError, match="more than 2 states"):
        System(frozenset(), {"a": Task(puts, ("a", 9))}, landings, anything_goes).explore(limit=2)
