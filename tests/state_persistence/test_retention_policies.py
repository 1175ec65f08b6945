"""Retention policies as functions: what they keep and why, on any states and on any clocks."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import JsonValue
from upath import UPath

from statevault.state_persistence.info import StateInfo
from statevault.state_persistence.retention import (
    Holdings,
    KeepAll,
    KeepAny,
    KeepBest,
    KeepLatest,
    KeepPeriodic,
    KeepWithin,
    KeepWithinSize,
    RetentionPlan,
    RetentionPolicy,
    plan_retention,
)
from tests.profiles import rounds

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
ERROR: dict[str, JsonValue] = {"exit": "error: KeyError"}

thorough = settings(max_examples=rounds(150, 3000), deadline=None)


def state(
    name: str,
    sequence: int,
    created_at: datetime | str = NOW,
    *,
    metadata: Mapping[str, JsonValue] | None = None,
    base: str | None = None,
) -> StateInfo:
    if isinstance(created_at, str):
        created_at = datetime.fromisoformat(created_at).replace(tzinfo=UTC)
    return StateInfo(
        name=name,
        path=UPath("/store") / name,
        sequence=sequence,
        created_at=created_at,
        writer="host:1:aa",
        files=1,
        size=10,
        stored_size=10,
        new_size=10,
        base=base,
        components=("models",),
        metadata=dict(metadata or {}),
    )


@dataclass(frozen=True)
class Objects:
    """The sizes of states that need the objects (name → bytes) in `by_state`, or one of 10 bytes of their own."""

    by_state: Mapping[str, Mapping[str, int]]

    def together(self, names: Iterable[str]) -> int:
        return max(self.growing(names), default=0)

    def growing(self, names: Iterable[str]) -> Iterator[int]:
        needed: dict[str, int] = {}
        for name in names:
            needed |= self.by_state.get(name, {name: 10})
            yield sum(needed.values())


def holdings(states: Sequence[StateInfo], objects: Mapping[str, Mapping[str, int]] | None = None) -> Holdings:
    return Holdings(tuple(states), NOW, Objects(objects or {}))


def numbered(*stamps: datetime | str) -> Holdings:
    """States ``1.state``, ``2.state``, …"""
    return holdings([state(f"{number}.state", number, stamp) for number, stamp in enumerate(stamps, 1)])


def names(states: Sequence[StateInfo]) -> list[str]:
    return [info.name for info in states]


def reasons(plan: RetentionPlan) -> dict[str, tuple[str, ...]]:
    return {decision.state.name: decision.reasons for decision in plan.decisions}


# What each policy keeps, and how it says so.


def test_the_newest_are_those_of_the_highest_sequence_whatever_their_clocks_say() -> None:
    held = numbered(NOW, "2026-11-20", "1970-01-01")
    assert KeepLatest(2).keep(held) == {"2.state": "one of the 2 newest", "3.state": "one of the 2 newest"}
    assert KeepLatest(1).keep(held) == {"3.state": "the newest"}
    assert len(KeepLatest(9).keep(held)) == 3


def test_states_within_an_age_are_kept() -> None:
    held = numbered("2026-11-14T11:59:59", "2026-11-14T12:00", NOW)
    assert KeepWithin(timedelta(days=7)).keep(held) == dict.fromkeys(["2.state", "3.state"], "not older than 7 days")
    assert KeepWithin(timedelta(hours=12)).keep(held) == {"3.state": "not older than 12:00:00"}
    assert len(KeepWithin(timedelta.max).keep(held)) == 3


def test_the_newest_state_of_each_of_the_last_periods_is_kept() -> None:
    held = numbered(
        "2024-12-30T10:00",  # in week 1 of 2025
        "2025-01-02T10:00",
        "2026-11-01T10:00",
        "2026-11-20T23:59",
        "2026-11-21T00:00",
        "2026-11-21T11:10",
        "2026-11-21T11:50",
    )
    assert KeepPeriodic(hourly=2).keep(held) == {
        "7.state": "newest of the hour 2026-11-21 11:00",
        "5.state": "newest of the hour 2026-11-21 00:00",
    }
    assert KeepPeriodic(daily=3, weekly=9, monthly=1, yearly=3).keep(held) == {
        "7.state": "newest of the day 2026-11-21 and the week 2026-W47 and the month 2026-11 and the year 2026",
        "4.state": "newest of the day 2026-11-20",
        "3.state": "newest of the day 2026-11-01 and the week 2026-W44",
        "2.state": "newest of the week 2025-W01 and the year 2025",
        "1.state": "newest of the year 2024",
    }


def test_periods_are_those_of_utc() -> None:
    tokyo = timezone(timedelta(hours=9))
    held = numbered(datetime(2026, 11, 21, 8, tzinfo=tokyo), datetime(2026, 11, 21, 9, tzinfo=tokyo))
    assert KeepPeriodic(daily=5).keep(held) == {
        "1.state": "newest of the day 2026-11-20",
        "2.state": "newest of the day 2026-11-21",
    }


REWARDS: list[JsonValue] = [3, 7.5, 7.5, True, float("nan"), float("inf"), "9", None, [9], {"mean": 9}, -1, 10**400]


@pytest.mark.parametrize(
    ("policy", "kept"),
    [
        (
            KeepBest(3, metric="reward"),
            {
                "11.state": f"reward {10**400} is one of the 3 highest",
                "2.state": "reward 7.5 is one of the 3 highest",
                "1.state": "reward 7.5 is one of the 3 highest",
            },
        ),
        (
            KeepBest(2, metric="reward", mode="min"),
            {"10.state": "reward -1 is one of the 2 lowest", "0.state": "reward 3 is one of the 2 lowest"},
        ),
        (KeepBest(1, metric="reward", mode="min"), {"10.state": "reward -1 is the lowest"}),
        (KeepBest(1, metric="reward.mean"), {"9.state": "reward.mean 9 is the highest"}),
        (KeepBest(1, metric="reward.mean.x"), {}),
        (KeepBest(1, metric="loss"), {}),
    ],
)
def test_the_best_are_those_with_the_best_numbers(policy: KeepBest, kept: dict[str, str]) -> None:
    held = holdings([state(f"{n}.state", n, metadata={"reward": reward}) for n, reward in enumerate(REWARDS)])
    assert policy.keep(held) == kept


@pytest.mark.parametrize("mode", ["max", "min"])
def test_of_equal_results_the_newer_is_the_better(mode: str) -> None:
    held = holdings([state(f"{n}.state", n, metadata={"reward": 1}) for n in range(3)])
    policy = KeepBest(1, metric="reward", mode="max" if mode == "max" else "min")
    assert list(policy.keep(held)) == ["2.state"]


def test_objects_that_states_share_count_once_within_a_size() -> None:
    objects = {
        "1.state": {"small": 1},
        "2.state": {"model": 900, "b": 200},
        "3.state": {"model": 900, "c": 50},
        "4.state": {"model": 900, "d": 50},
    }
    held = holdings([state(name, number) for number, name in enumerate(objects)], objects)
    reason = "fits into 1,000 bytes with all newer ones"
    assert KeepWithinSize(1000).keep(held) == {"4.state": reason, "3.state": reason}
    assert list(KeepWithinSize(999).keep(held)) == ["4.state"]
    assert KeepWithinSize(949).keep(held) == {}
    assert len(KeepWithinSize(1201).keep(held)) == 4


def test_policies_combine_with_the_reasons_of_all() -> None:
    held = numbered("2026-11-19", "2026-11-20", NOW)
    policies = (KeepLatest(1), KeepPeriodic(daily=2))
    assert KeepAny(policies).keep(held) == {
        "3.state": "the newest, newest of the day 2026-11-21",
        "2.state": "newest of the day 2026-11-20",
    }
    assert KeepAll(policies).keep(held) == {"3.state": "the newest and newest of the day 2026-11-21"}


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: KeepLatest(0), ValueError, "n must be at least 1, not 0"),
        (lambda: KeepLatest(True), TypeError, "n must be an integer, not True"),
        (lambda: KeepLatest("3"), TypeError, "n must be an integer, not '3'"),  # type: ignore[arg-type]
        (lambda: KeepWithin(timedelta()), ValueError, "max_age must be positive, not 0:00:00"),
        (lambda: KeepWithin(7), TypeError, "must be a timedelta"),  # type: ignore[arg-type]
        (KeepPeriodic, ValueError, "one of hourly, daily, weekly, monthly and yearly must be at least 1"),
        (lambda: KeepPeriodic(daily=1, weekly=-1), ValueError, "weekly must be at least 0, not -1"),
        (lambda: KeepPeriodic(daily=1.5), TypeError, "daily must be an integer"),  # type: ignore[arg-type]
        (lambda: KeepBest(0, metric="reward"), ValueError, "n must be at least 1"),
        (lambda: KeepBest(1, metric=""), ValueError, "metric must be a key of the metadata"),
        (lambda: KeepBest(1, metric="eval."), ValueError, "not 'eval.'"),
        (lambda: KeepBest(1, metric=3), TypeError, "metric must be a string, not 3"),  # type: ignore[arg-type]
        (lambda: KeepBest(1, metric="a", mode="best"), ValueError, "'max' or 'min', not 'best'"),  # type: ignore[arg-type]
        (lambda: KeepWithinSize(0), ValueError, "max_bytes must be at least 1"),
        (lambda: KeepAny(()), ValueError, "KeepAny needs at least one policy"),
        (lambda: KeepAll(()), ValueError, "KeepAll needs at least one policy"),
        (lambda: KeepAny((3,)), TypeError, "KeepAny takes retention policies, and 3 is none"),  # type: ignore[arg-type]
        (lambda: KeepAll((KeepLatest,)), TypeError, "is none"),  # type: ignore[arg-type]
        (lambda: replace(numbered(NOW), now=datetime(2026, 1, 1)), ValueError, "has none"),
        (
            lambda: holdings([state("b", 2), state("a", 1)]),
            ValueError,
            r"b \(sequence 2\) comes before a \(sequence 1\)",
        ),
        (lambda: holdings([state("a", 1), state("a", 2)]), ValueError, "have one name"),
    ],
)
def test_what_makes_no_sense_is_refused(make: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


# What stays, whatever the policy says.


def test_a_plan_says_of_each_state_why_it_stays() -> None:
    held = holdings(
        [
            state("pinned.state", 1),
            state("resumed.state", 2),
            state("gone.state", 3),
            state("best.keep", 4),
            state("bare.state", 5),
            state("clean.state", 6),
            state("crash.state", 7, metadata=ERROR),
        ]
    )
    plan = plan_retention(
        KeepLatest(1),
        held,
        pinned={"pinned.state": ("paper", "demo"), "bare.state": (), "removed.state": ("old",)},
        resumed_from="resumed.state",
    )
    assert reasons(plan) == {
        "pinned.state": ("pinned as 'paper'", "pinned as 'demo'"),
        "resumed.state": ("the run has resumed from it",),
        "gone.state": (),
        "best.keep": ("its name does not match '*.state'",),
        "bare.state": ("pinned",),
        "clean.state": ("the newest that was not saved after an error",),
        "crash.state": ("the newest",),
    }
    assert names(plan.removed) == ["gone.state"]
    assert plan.kept == tuple(info for info in held.states if info.name != "gone.state")


def test_a_reason_is_given_once() -> None:
    assert reasons(plan_retention(KeepLatest(1), numbered(NOW))) == {"1.state": ("the newest",)}
    best = KeepBest(1, metric="reward")
    assert reasons(plan_retention(best, numbered(NOW))) == {"1.state": ("the newest",)}


def test_protected_states_are_not_counted() -> None:
    held = numbered(*[NOW] * 5)
    plan = plan_retention(KeepLatest(2), held, pinned={"1.state": ("a",)}, resumed_from="2.state")
    assert names(plan.removed) == ["3.state"]


def test_states_of_other_names_are_neither_counted_nor_removed() -> None:
    held = holdings([state(name, n) for n, name in enumerate(["a.keep", "b.state", "c.state", "d.keep"])])
    assert names(plan_retention(KeepLatest(1), held).removed) == ["b.state"]
    assert names(plan_retention(KeepLatest(1), held, pattern="*.keep").removed) == ["a.keep"]
    assert names(plan_retention(KeepLatest(1), held, pattern="*").removed) == ["a.keep", "b.state", "c.state"]


def test_states_of_a_crash_loop_do_not_push_out_the_last_good_one() -> None:
    crashes = [state(f"crash-{n}.state", n, metadata=ERROR) for n in range(2, 6)]
    held = holdings([state("good.state", 1, metadata={"exit": "clean"}), *crashes])
    assert names(plan_retention(KeepLatest(2), held).kept) == ["good.state", "crash-4.state", "crash-5.state"]


def test_the_newest_may_go_only_where_that_is_asked_for() -> None:
    held = holdings(
        [
            state("best.state", 1, metadata={"reward": 9}),
            state("good.state", 2),
            state("crash.state", 3, metadata=ERROR),
        ]
    )
    policy = KeepBest(1, metric="reward")
    assert names(plan_retention(policy, held).removed) == []
    assert reasons(plan_retention(policy, held, may_remove_newest=True)) == {
        "best.state": ("reward 9 is the highest",),
        "good.state": ("the newest that was not saved after an error",),
        "crash.state": (),
    }


def test_a_policy_that_keeps_what_it_was_not_shown_is_refused() -> None:
    @dataclass(frozen=True)
    class Misspelt:
        def keep(self, holdings: Holdings) -> Mapping[str, str]:
            return {"1.sate": "mine"}

    with pytest.raises(ValueError, match=r"Misspelt\(\) keeps \['1.sate'\], which it was not shown"):
        plan_retention(Misspelt(), numbered(NOW))


def test_nothing_is_planned_for_an_empty_store() -> None:
    for policy in POLICIES.values():
        assert plan_retention(policy, holdings([])).decisions == ()


# Clocks.


def test_a_state_is_as_old_as_the_latest_clock_before_it() -> None:
    held = numbered("2026-11-20", "1970-01-01", "2031-01-01", "2026-11-19", "2026-11-21")
    assert [(dated.state.name, dated.by.name) for dated in held.dated()] == [
        ("1.state", "1.state"),
        ("2.state", "1.state"),
        ("4.state", "1.state"),
        ("5.state", "5.state"),
    ]
    assert names(held.ahead()) == ["3.state"]


def test_a_clock_that_fell_to_1970_does_not_make_states_old() -> None:
    held = numbered("2026-11-01", "2026-11-20", "1970-01-01T00:01", "1970-01-01T00:02")
    assert list(KeepWithin(timedelta(days=7)).keep(held)) == ["2.state", "3.state", "4.state"]
    assert KeepPeriodic(daily=2).keep(held) == {
        "1.state": "newest of the day 2026-11-01",
        "2.state": "dates 4.state, whose clock was behind",
        "4.state": "newest of the day 2026-11-20",
    }


def test_states_of_one_instant_date_themselves() -> None:
    assert KeepPeriodic(daily=1).keep(numbered(NOW, NOW)) == {"2.state": "newest of the day 2026-11-21"}


def test_a_stamp_from_the_future_is_kept_and_makes_no_other_state_new() -> None:
    held = numbered("2026-10-01", "2031-01-01", "2026-10-02", "2026-10-03", NOW)
    reason = "its age is unknown: its clock said 2031-01-01 00:00 UTC, which is yet to come"
    assert KeepWithin(timedelta(days=7)).keep(held) == {"2.state": reason, "5.state": "not older than 7 days"}
    assert KeepPeriodic(daily=2).keep(held) == {
        "2.state": reason,
        "4.state": "newest of the day 2026-10-03",
        "5.state": "newest of the day 2026-11-21",
    }
    assert list(KeepLatest(1).keep(held)) == ["5.state"]


# Properties, on any states.

POLICIES: dict[str, RetentionPolicy] = {
    "latest": KeepLatest(3),
    "periodic": KeepPeriodic(hourly=2, daily=3, monthly=2),
    "best": KeepBest(2, metric="reward"),
    "worst": KeepBest(2, metric="reward", mode="min"),
    "size": KeepWithinSize(25),
    "within": KeepWithin(timedelta(days=3)),
    "any": KeepAny((KeepLatest(2), KeepBest(1, metric="reward"))),
    "all": KeepAll((KeepLatest(4), KeepWithin(timedelta(days=3)))),
}
some_policy = st.sampled_from(list(POLICIES.values()))
# An intersection may leave out a state by whose clock one of its policies dates others.
repeatable = some_policy.filter(lambda policy: not isinstance(policy, KeepAll))
# Near each other, so that states share periods; and now and then far off.
stamps = st.one_of(
    st.integers(0, 200).map(lambda hours: NOW - timedelta(hours=hours)),
    st.datetimes(datetime(1970, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC)),
)
metadata = st.fixed_dictionaries(
    {},
    optional={
        "reward": st.one_of(st.integers(-3, 3), st.floats(), st.booleans(), st.none()),
        "exit": st.sampled_from(["clean", "error: KeyError"]),
    },
)


@st.composite
def stores(draw: st.DrawFn, *, honest: bool = False) -> Holdings:
    """Any holdings; where `honest`, of one clock that neither falls back nor is ahead."""
    created = draw(st.lists(stamps, max_size=12))
    if honest:
        created = sorted(min(stamp, NOW) for stamp in created)
    needed = st.dictionaries(st.sampled_from("abcdef"), st.just(10), min_size=1, max_size=3)
    states = [
        # Two writers may take the same sequence.
        state(f"{n}.{draw(st.sampled_from(['state', 'state', 'keep']))}", n // 2, stamp, metadata=draw(metadata))
        for n, stamp in enumerate(created)
    ]
    return holdings(states, {info.name: draw(needed) for info in states})


def remaining(held: Holdings, plan: RetentionPlan) -> Holdings:
    return replace(held, states=plan.kept)


@thorough
@given(stores(), some_policy, st.data())
def test_no_clock_and_no_policy_removes_a_protected_state(
    held: Holdings, policy: RetentionPolicy, data: st.DataObject
) -> None:
    some_name = st.sampled_from([*names(held.states), "gone.state"])
    pinned = data.draw(st.sets(some_name))
    resumed_from = data.draw(st.none() | some_name)
    plan = plan_retention(policy, held, pinned=dict.fromkeys(pinned, ("it",)), resumed_from=resumed_from)
    removed = set(names(plan.removed))
    assert not removed & {*names(held.states[-1:]), *pinned, resumed_from}
    assert all(name.endswith(".state") for name in removed)
    clean = [info.name for info in held.states if not info.is_after_error]
    assert not removed & set(clean[-1:])


@thorough
@given(stores(), some_policy)
def test_a_plan_has_one_decision_for_each_state_in_order(held: Holdings, policy: RetentionPolicy) -> None:
    plan = plan_retention(policy, held)
    assert tuple(decision.state for decision in plan.decisions) == held.states
    assert all(decision.keep == bool(decision.reasons) for decision in plan.decisions)
    assert sorted(names(plan.kept) + names(plan.removed)) == sorted(names(held.states))


@thorough
@given(stores(), some_policy, some_policy)
def test_any_is_the_union_and_all_is_the_intersection(held: Holdings, a: RetentionPolicy, b: RetentionPolicy) -> None:
    kept_by_a, kept_by_b = set(a.keep(held)), set(b.keep(held))
    assert set(KeepAny((a, b)).keep(held)) == kept_by_a | kept_by_b
    assert set(KeepAll((a, b)).keep(held)) == kept_by_a & kept_by_b


@thorough
@given(stores(), some_policy)
def test_policies_are_pure(held: Holdings, policy: RetentionPolicy) -> None:
    before = copy.deepcopy(held.states)
    assert plan_retention(policy, held) == plan_retention(policy, held)
    # Not by ==: NaN is not equal to its copy.
    assert repr(held.states) == repr(before)


@thorough
@given(stores(honest=True), repeatable, st.data())
def test_a_plan_that_was_carried_out_removes_nothing_more(
    held: Holdings, policy: RetentionPolicy, data: st.DataObject
) -> None:
    pinned = dict.fromkeys(data.draw(st.sets(st.sampled_from([*names(held.states), "gone.state"]))), ("it",))
    may_remove_newest = data.draw(st.booleans())
    first = plan_retention(policy, held, pinned=pinned, may_remove_newest=may_remove_newest)
    second = plan_retention(policy, remaining(held, first), pinned=pinned, may_remove_newest=may_remove_newest)
    assert second.removed == ()


@thorough
@given(stores(), repeatable)
def test_what_a_policy_keeps_it_keeps_again_on_any_clocks(held: Holdings, policy: RetentionPolicy) -> None:
    kept = policy.keep(held)
    left = replace(held, states=tuple(info for info in held.states if info.name in kept))
    assert set(policy.keep(left)) == set(kept)


@thorough
@given(stores(), st.timedeltas(timedelta(minutes=1), timedelta(days=400)))
def test_states_within_an_age_are_the_newest_but_for_stamps_from_the_future(held: Holdings, age: timedelta) -> None:
    kept = KeepWithin(age).keep(held)
    known = [info.name in kept for info in held.states if info not in held.ahead()]
    assert known == sorted(known)
    assert set(names(held.ahead())) <= set(kept)


@thorough
@given(stores(), st.integers(1, 70))
def test_within_a_size_is_what_counting_one_by_one_finds(held: Holdings, max_bytes: int) -> None:
    fitting: list[str] = []
    for info in reversed(held.states):
        if held.sizes.together([*fitting, info.name]) > max_bytes:
            break
        fitting.append(info.name)
    assert list(KeepWithinSize(max_bytes).keep(held)) == fitting
