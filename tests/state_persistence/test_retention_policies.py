"""Retention policies as functions: what they keep and why, on any states and on any clocks."""

from __future__ import annotations

import copy
import math
import pickle
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import JsonValue
from upath import UPath

from statevault.state_persistence.info import StateInfo
from statevault.state_persistence.retention import (
    CannotJudge,
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
    Verdict,
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
class Only:
    """A policy that keeps states of some names."""

    names: frozenset[str]

    def keep(self, holdings: Holdings) -> Mapping[str, str]:
        return {info.name: "by name" for info in holdings.states if info.name in self.names}


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


def rewarded(*rewards: JsonValue) -> Holdings:
    """States ``0.state``, ``1.state``, … with a reward in their metadata."""
    metadata: list[dict[str, JsonValue]] = [{"reward": reward} for reward in rewards]
    return holdings([state(f"{n}.state", n, metadata=described) for n, described in enumerate(metadata)])


@pytest.mark.parametrize(
    ("policy", "kept"),
    [
        (
            KeepBest(3, metric="reward"),
            {
                "11.state": f"reward {10**400} is one of the 3 highest",
                "2.state": "reward 7.5 is one of the 3 highest",
                "1.state": "reward 7.5 is one of the 3 highest",
                "9.state": "one of the 3 newest without a number at reward",
                "8.state": "one of the 3 newest without a number at reward",
                "7.state": "one of the 3 newest without a number at reward",
            },
        ),
        (
            KeepBest(1, metric="reward", mode="min"),
            {"10.state": "reward -1 is the lowest", "9.state": "the newest without a number at reward"},
        ),
        (
            KeepBest(1, metric="reward.mean"),
            {"9.state": "reward.mean 9 is the highest", "11.state": "the newest without a number at reward.mean"},
        ),
    ],
)
def test_the_best_are_those_with_the_best_numbers_and_the_newest_without_one(
    policy: KeepBest, kept: dict[str, str]
) -> None:
    assert policy.keep(rewarded(*REWARDS)) == kept


@pytest.mark.parametrize("mode", ["max", "min"])
@pytest.mark.parametrize(("n", "kept"), [(2, "14"), (3, "145"), (4, "1345"), (5, "12345"), (9, "12345")])
def test_infinity_and_nan_are_worse_than_all_numbers_whatever_is_good(n: int, kept: str, mode: str) -> None:
    # 1 and 4 are numbers; of those that are not finite, the newest are the best.
    held = rewarded(0, 1, float("nan"), float("-inf"), 1, float("inf"))
    held = replace(held, states=held.states[1:])
    policy = KeepBest(n, metric="reward", mode="max" if mode == "max" else "min")
    assert sorted(policy.keep(held)) == [f"{number}.state" for number in kept]


def test_a_key_with_a_dot_is_found_as_well() -> None:
    described: list[dict[str, JsonValue]] = [
        {"eval": {"reward": 5}},
        {"eval.reward": 7},
        {"eval": {"reward": "bad"}, "eval.reward": 6},
        {"eval.reward.mean": 9},
        {"eval": {"reward.mean": 8}},
    ]
    held = holdings([state(f"{n}.state", n, metadata=metadata) for n, metadata in enumerate(described)])
    assert list(KeepBest(2, metric="eval.reward").keep(held))[:2] == ["1.state", "2.state"]
    assert list(KeepBest(2, metric="eval.reward.mean").keep(held))[:2] == ["3.state", "4.state"]


# What a policy can't judge.


def typed(metric: str, *described: dict[str, JsonValue]) -> CannotJudge:
    """What is said when somebody has typed a metric that no state has."""
    held = holdings([state(f"{n}.state", n, metadata=metadata) for n, metadata in enumerate(described)])
    verdict = KeepBest(1, metric=metric).keep(held)
    assert isinstance(verdict, Verdict)
    assert verdict.unjudged == set(names(held.states)) == verdict.keys()
    (problem,) = verdict.problems
    return problem


def test_a_metric_that_no_state_has_is_said_and_which_may_have_been_meant() -> None:
    problem = typed("rewrd", {"reward": 1, "step": 3}, {"eval": {"reward": 2}, "name": "x"})
    assert problem.policy == KeepBest(1, metric="rewrd")
    assert str(problem) == (
        "no state has a finite number in its metadata at 'rewrd'. Did you mean 'eval.reward'? "
        "Numbers are at 'eval.reward', 'reward', 'step'"
    )


@pytest.mark.parametrize(
    ("metric", "metadata", "said"),
    [
        ("reward", {"reward": "231.5"}, "In 0.state it is '231.5', no finite number."),
        ("reward", {"reward": True}, "In 0.state it is True, no finite number."),
        ("reward", {"reward": None}, "In 0.state it is None, no finite number."),
        ("reward", {"reward": float("nan")}, "In 0.state it is nan, no finite number."),
        ("reward", {"reward": float("-inf")}, "There are no numbers at all"),
        ("reward", {"reward": [231.5]}, "In 0.state it is [231.5], no finite number."),
        ("reward", {}, "There are no numbers at all"),
        ("reward", {"eval_reward": 1}, "Did you mean 'eval_reward'?"),
        ("loss", {"train": {"loss": 1}}, "Did you mean 'train.loss'?"),
        ("train", {"train": {"loss": 1}}, "In 0.state it is {'loss': 1}, no finite number. Did you mean 'train.loss'?"),
        ("REWARD", {"reward": 1}, "Did you mean 'reward'?"),
        ("test.reward", {"eval": {"reward": 1}}, "Did you mean 'eval.reward'?"),
        ("reward", {"x": {"y": 1}}, "at 'reward'. Numbers are at 'x.y'"),
        ("reward", {"a.b": 1, "": 2, "c.": 3, "long" * 99: 4, "n": float("nan"), "b": False}, "Numbers are at 'a.b'"),
        ("reward", {"\x1b[31m": 1}, r"Numbers are at '\x1b[31m'"),
    ],
)
def test_what_a_metric_is_instead_is_said(metric: str, metadata: dict[str, JsonValue], said: str) -> None:
    assert said in str(typed(metric, metadata))


def test_of_very_many_numbers_some_are_listed() -> None:
    problem = typed("reward", {f"number {n}": n for n in range(5000)})
    assert "'number 29' and 2970 more" in str(problem)
    assert len(str(problem)) < 1000


def test_what_is_wrong_is_the_same_as_long_as_it_is() -> None:
    assert typed("reward", {"loss_1": 1}) == typed("reward", {"loss_1": 1}, {"loss_2": 1})
    assert typed("reward", {"loss": 1}) != typed("rewrd", {"loss": 1})


def test_a_policy_that_can_not_judge_removes_nothing() -> None:
    held = numbered(*[NOW] * 6)
    typo = KeepBest(1, metric="rewrd")
    for policy in (typo, KeepAny((typo,)), KeepAll((typo,)), KeepAny((KeepLatest(2), typo))):
        plan = plan_retention(policy, held, may_remove_newest=True)
        assert plan.removed == ()
        assert [problem.policy for problem in plan.problems] == [typo]
    assert reasons(plan)["1.state"] == ("can't be judged: no state has a finite number in its metadata at 'rewrd'",)
    assert reasons(plan)["6.state"] == ("one of the 2 newest", "the newest that was not saved after an error")


def test_what_another_policy_is_certain_to_remove_goes_all_the_same() -> None:
    held = numbered(*[NOW] * 6)
    typo = KeepBest(1, metric="rewrd")
    kept: dict[RetentionPolicy, str] = {
        KeepAll((typo, KeepWithinSize(30))): "456",
        KeepAll((KeepLatest(4), typo, KeepWithinSize(30))): "456",
        KeepAny((KeepLatest(1), KeepAll((typo, KeepWithinSize(20))))): "56",
        KeepAll((KeepAny((typo, KeepLatest(1))), KeepWithinSize(20))): "56",
    }
    for policy, numbers in kept.items():
        plan = plan_retention(policy, held)
        assert names(plan.kept) == [f"{number}.state" for number in numbers]
        assert plan.problems, "it is said although nothing comes of it"


def test_each_problem_is_said_once() -> None:
    typo, other = KeepBest(1, metric="rewrd"), KeepBest(2, metric="loss")
    plan = plan_retention(KeepAny((typo, KeepAll((other, typo)))), numbered(NOW))
    assert [problem.policy for problem in plan.problems] == [typo, other]


@pytest.mark.parametrize("answer", [None, ["1.state"], {"1.state"}, {"1.state": None}, "1.state", 3])
def test_a_policy_that_returns_no_reasons_is_refused(answer: Any) -> None:
    class Forgetful:
        def keep(self, holdings: Holdings) -> Any:
            return answer

    message = r"Forgetful\.keep\(\) must return the reason to keep each state, by name, not "
    for policy in (Forgetful(), KeepAny((KeepLatest(1), Forgetful())), KeepAll((Forgetful(), KeepLatest(1)))):
        with pytest.raises(TypeError, match=message + re.escape(repr(answer))):
            plan_retention(policy, numbered(NOW))


def test_a_policy_of_ones_own_may_keep_none_or_say_that_it_can_not_judge() -> None:
    @dataclass(frozen=True)
    class Milestones:
        needs_steps: bool

        def keep(self, holdings: Holdings) -> Mapping[str, str]:
            if self.needs_steps and not any("step" in info.metadata for info in holdings.states):
                return Verdict.cannot_judge(self, holdings, "no state has a step")
            return {}

    held = numbered(NOW, NOW)
    assert names(plan_retention(Milestones(False), held).removed) == ["1.state"]
    plan = plan_retention(KeepAny((Milestones(True), KeepLatest(1))), held)
    assert plan.removed == ()
    assert list(map(str, plan.problems)) == ["no state has a step"]
    assert plan_retention(Milestones(True), holdings([])).problems == ()


def test_a_verdict_is_a_mapping_that_can_be_copied_and_pickled() -> None:
    verdict = KeepBest(1, metric="rewrd").keep(numbered(NOW))
    assert isinstance(verdict, Verdict)
    for twin in (copy.deepcopy(verdict), pickle.loads(pickle.dumps(verdict))):
        assert (twin, twin.unjudged, twin.problems) == (verdict, {"1.state"}, verdict.problems)
    # Whoever wraps a policy and knows nothing of all this removes nothing, either.
    assert set(dict(verdict)) == {"1.state"}


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
    latest = KeepAny((KeepLatest(1), KeepLatest(1)))
    assert reasons(plan_retention(latest, numbered(NOW))) == {"1.state": ("the newest",)}


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
            state("good.state", 2, metadata={"reward": 5}),
            state("crash.state", 3, metadata=ERROR | {"reward": 5}),
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

    for policy in (Misspelt(), KeepAll((Misspelt(), KeepLatest(1)))):
        with pytest.raises(ValueError, match=r"Misspelt\(\) keeps \['1.sate'\], which it was not shown"):
            plan_retention(policy, numbered(NOW))


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
    kept = KeepPeriodic(daily=2).keep(held)
    assert kept == {
        "1.state": "newest of the day 2026-11-01",
        "2.state": "newest of the day 2026-11-20",
        "3.state": "its age is unknown: its clock said 1970-01-01 00:01 UTC, since it was not set",
        "4.state": "its age is unknown: its clock said 1970-01-01 00:02 UTC, since it was not set",
    }


def test_a_clock_that_fell_back_does_not_bring_a_state_into_another_period() -> None:
    held = numbered("2026-11-01", "2026-11-20", "2026-11-19T00:01", "2026-11-19T00:02")
    assert KeepPeriodic(daily=2).keep(held) == {
        "1.state": "newest of the day 2026-11-01",
        "2.state": "dates 4.state, whose clock was behind",
        "4.state": "newest of the day 2026-11-20",
    }


def test_clocks_that_were_never_set_make_no_state_old() -> None:
    held = numbered("1970-01-01", "2000-01-01T00:00", "1980-01-01", "2007-04-07")
    for policy in (KeepWithin(timedelta(days=7)), KeepPeriodic(hourly=1, yearly=1)):
        plan = plan_retention(policy, held)
        assert plan.removed == ()
        (problem,) = plan.problems
        assert str(problem) == "the age of no state is known: all of their clocks were ahead of now, or not set"
    # They still go by what does not need a clock.
    both = KeepAll((KeepWithin(timedelta(days=7)), KeepLatest(2)))
    assert names(plan_retention(both, held).removed) == ["1.state", "2.state"]


def test_a_state_whose_clock_was_not_set_is_older_than_those_after_it() -> None:
    held = numbered("1970-01-01", "2026-11-01", "1970-01-02", "2026-11-10", "1970-01-03", "2026-11-20")
    assert list(KeepWithin(timedelta(days=7)).keep(held)) == ["5.state", "6.state"]
    assert sorted(KeepPeriodic(daily=2).keep(held)) == ["4.state", "5.state", "6.state"]
    # The month is known of all after the first with a clock that was set.
    assert sorted(KeepPeriodic(monthly=1).keep(held)) == ["6.state"]
    assert sorted(KeepPeriodic(monthly=2).keep(held)) == ["1.state", "6.state"]
    assert plan_retention(KeepPeriodic(daily=1), held).problems == ()


def test_where_the_clock_is_not_set_now_either_it_tells_how_much_time_has_passed() -> None:
    held = replace(numbered("1970-01-01T00:10", "1970-01-01T09:10"), now=datetime(1970, 1, 1, 10, tzinfo=UTC))
    assert list(KeepWithin(timedelta(hours=1)).keep(held)) == ["2.state"]
    assert list(KeepPeriodic(daily=3).keep(held)) == ["2.state"]


@pytest.mark.parametrize("policy", [KeepWithin(timedelta(days=7)), KeepPeriodic(hourly=1, daily=1)], ids=repr)
@pytest.mark.parametrize("now", ["1970-01-02", "2020-05-01", "2026-11-01"])
def test_where_all_clocks_are_ahead_of_now_nothing_goes(policy: RetentionPolicy, now: str) -> None:
    held = replace(numbered("2026-11-20", "2026-11-21", "2031-01-01"), now=datetime.fromisoformat(f"{now}T00:00+00:00"))
    plan = plan_retention(policy, held)
    assert plan.removed == ()
    assert len(plan.problems) == 1


@pytest.mark.parametrize("stamp", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_time_that_utc_does_not_have_is_one_like_others(stamp: str) -> None:
    held = numbered(*sorted([datetime.fromisoformat(stamp), NOW]))
    for policy in POLICIES.values():
        plan_retention(policy, held)
    assert len(KeepWithin(timedelta(days=1)).keep(held)) == 2
    assert len(KeepPeriodic(daily=3).keep(held)) == 2


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
        "reward": st.one_of(st.integers(-3, 3), st.floats(), st.booleans(), st.none(), st.just("3")),
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


def composed(broken: RetentionPolicy) -> st.SearchStrategy[RetentionPolicy]:
    """Policies of policies, with one in some places that stands for a broken one."""
    return st.recursive(
        some_policy | st.just(broken),
        lambda inner: st.builds(
            lambda kind, policies: kind(tuple(policies)),
            st.sampled_from([KeepAny, KeepAll]),
            st.lists(inner, min_size=1, max_size=3),
        ),
        max_leaves=5,
    )


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


# Properties of what can't be judged.


class Swapped:
    """A policy that asks another one, which can be changed after it was put into policies."""

    by: RetentionPolicy

    def keep(self, holdings: Holdings) -> Mapping[str, str]:
        return self.by.keep(holdings)


@thorough
@given(stores(), st.data())
def test_nothing_goes_that_a_broken_rule_might_have_kept(held: Holdings, data: st.DataObject) -> None:
    rule = Swapped()
    policy = data.draw(composed(rule))
    rule.by = KeepBest(1, metric="rewrd")
    kept = policy.keep(held)
    all_names = frozenset(names(held.states))
    rule.by = Only(data.draw(st.frozensets(st.sampled_from(sorted(all_names)))) if all_names else all_names)
    assert set(policy.keep(held)) <= set(kept)
    rule.by = Only(all_names)
    assert set(policy.keep(held)) == set(kept), "and what none of its answers would keep goes"


@thorough
@given(stores(), st.integers(1, 4), st.sampled_from(["max", "min"]))
def test_of_mixed_values_exactly_the_best_and_the_newest_without_one_stay(
    held: Holdings, n: int, mode: Literal["max", "min"]
) -> None:
    def number(info: StateInfo) -> float | None:
        reward = info.metadata.get("reward")
        return reward if isinstance(reward, int | float) and not isinstance(reward, bool) else None

    newest_first = held.states[::-1]
    numbers = [(info, value) for info in newest_first if (value := number(info)) is not None]
    sign = -1 if mode == "max" else 1
    ranked = sorted(numbers, key=lambda pair: sign * pair[1] if math.isfinite(pair[1]) else math.inf)
    without = [info for info in newest_first if number(info) is None]
    expected = {info.name for info, _ in ranked[:n]} | {info.name for info in without[:n]}
    if not any(math.isfinite(value) for _, value in numbers):
        expected = set(names(held.states))
    assert set(KeepBest(n, metric="reward", mode=mode).keep(held)) == expected


@thorough
@given(
    st.lists(st.tuples(st.integers(0, 400), st.booleans()), max_size=12),
    st.sampled_from(
        [KeepWithin(timedelta(hours=30)), KeepPeriodic(hourly=2, daily=3), KeepPeriodic(monthly=1, daily=1)]
    ),
)
def test_nothing_goes_with_clocks_that_were_not_set_that_would_stay_with_right_ones(
    hours_ago: list[tuple[int, bool]], policy: RetentionPolicy
) -> None:
    times = sorted(((NOW - timedelta(hours=hours), is_set) for hours, is_set in hours_ago), key=lambda pair: pair[0])
    right = numbered(*(moment for moment, _ in times))
    told = numbered(*(moment if is_set else moment.replace(year=1970) for moment, is_set in times))
    assert set(policy.keep(right)) <= set(policy.keep(told))
