"""Plans of retention for a store: what they decide on, and what they read for it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from statevault.errors import StateNotFoundError, StorageError
from statevault.format.keys import commit_key
from statevault.state_persistence import (
    Holdings,
    KeepAny,
    KeepBest,
    KeepLatest,
    KeepPeriodic,
    KeepWithin,
    KeepWithinSize,
    RetentionPlan,
    RetentionPolicy,
    StateStore,
)
from tests.servers import StorageTarget
from tests.state_persistence.components import Folder
from tests.state_persistence.storages import DictStorage, FailingStorage, WatchedStorage


def filled(storage: DictStorage | WatchedStorage | FailingStorage, count: int = 5) -> StateStore:
    """A store of states ``0.state``, ``1.state``, … that share a large file, with their numbers as rewards."""
    store = StateStore(storage)
    folder = Folder({"frozen": random.Random(0).randbytes(10_000)})
    store.register("folder", folder)
    for number in range(count):
        folder.files["log"] = random.Random(number).randbytes(1000)
        store.save_state(name=f"{number}.state", metadata={"reward": number})
    return store


def stored(target: StorageTarget) -> int:
    """Bytes of all that lies in the folders of states."""
    keys = target.raw.keys()
    return sum(len(target.raw.get(key)) for key in keys if "_vault/" not in key)


def removed(plan: RetentionPlan) -> list[str]:
    return [state.name for state in plan.removed]


def kinds(storage: WatchedStorage) -> Counter[str]:
    """How many calls of each kind there were, and forget them."""
    counted = Counter(call.partition(" ")[0] for call in storage.calls)
    storage.calls.clear()
    return counted


def test_a_plan_says_what_goes_and_removes_nothing() -> None:
    with filled(DictStorage()) as store:
        plan = store.plan_retention(KeepAny((KeepLatest(2), KeepBest(1, metric="reward", mode="min"))))
        assert removed(plan) == ["1.state", "2.state"]
        assert {decision.state.name: decision.reasons for decision in plan.decisions} == {
            "0.state": ("reward 0 is the lowest",),
            "1.state": (),
            "2.state": (),
            "3.state": ("one of the 2 newest",),
            "4.state": ("one of the 2 newest", "the newest"),
        }
        assert [decision.state for decision in plan.decisions] == store.states()
        store.remove(removed(plan))
        assert store.names() == ["0.state", "3.state", "4.state"]
        assert store.plan_retention(KeepLatest(2)).decisions[0].keep is False


def test_pinned_states_and_the_one_resumed_from_stay() -> None:
    with filled(DictStorage()) as store:
        store.pin("1.state", "paper")
        plan = store.plan_retention(KeepLatest(1), resumed_from="2.state")
        assert removed(plan) == ["0.state", "3.state"]
        assert plan.decisions[1].reasons == ("pinned as 'paper'",)
        assert store.protected(resumed_from="2.state") == {
            "1.state": ("pinned as 'paper'",),
            "2.state": ("the run has resumed from it",),
            "4.state": ("the newest",),
        }
        assert store.freed_by(["1.state"]) == 0
        assert store.remove(["1.state"]).freed == 0
        store.unpin("1.state")
        assert removed(store.plan_retention(KeepLatest(1), resumed_from="2.state")) == ["0.state", "1.state", "3.state"]


def test_the_newest_states_are_protected_unless_that_is_not_wanted() -> None:
    with filled(DictStorage(), 2) as store:
        store.save_state(name="crash.state", metadata={"exit": "error: KeyError", "reward": 9})
        policy = KeepBest(1, metric="reward", mode="min")
        assert removed(store.plan_retention(policy)) == []
        assert removed(store.plan_retention(policy, may_remove_newest=True)) == ["crash.state"]
        assert store.protected() == {
            "1.state": ("the newest that was not saved after an error",),
            "crash.state": ("the newest",),
        }


def test_ages_are_taken_now_or_when_it_is_said() -> None:
    with filled(DictStorage()) as store:
        assert removed(store.plan_retention(KeepWithin(timedelta(days=1)))) == []
        tomorrow = datetime.now(UTC) + timedelta(days=2)
        assert len(removed(store.plan_retention(KeepWithin(timedelta(days=1)), now=tomorrow))) == 4
        with pytest.raises(ValueError, match="time zone"):
            store.plan_retention(KeepLatest(1), now=datetime(2026, 1, 1))


def test_only_names_that_match_the_pattern_are_decided_on() -> None:
    with filled(DictStorage()) as store:
        assert removed(store.plan_retention(KeepLatest(1), pattern="[0-2].state")) == ["0.state", "1.state"]
        assert removed(store.plan_retention(KeepLatest(1), pattern="*.keep")) == []


def test_an_empty_store_has_an_empty_plan() -> None:
    with StateStore(DictStorage()) as store:
        assert store.plan_retention(KeepLatest(1)).decisions == ()
        assert store.protected() == {}
        assert store.freed_by([]) == 0
        assert store.freed_by(["none.state"]) == 0


def test_what_is_freed_is_asked_for_several_states_of_this_store() -> None:
    with filled(DictStorage()) as store:
        with pytest.raises(TypeError, match=r"freed_by\(\) takes several states: freed_by\(\['1.state'\]\)"):
            store.freed_by("1.state")
        with pytest.raises(StateNotFoundError, match="is not in"):
            store.freed_by(["/somewhere/1.state"])


def test_a_policy_of_ones_own_is_shown_states_and_sizes() -> None:
    @dataclass(frozen=True)
    class Frugal:
        """Keeps states that alone need no more than so many bytes."""

        max_bytes: int

        def keep(self, holdings: Holdings) -> Mapping[str, str]:
            sizes = {state.name: holdings.sizes.together([state.name]) for state in holdings.states}
            return {name: f"{size} bytes" for name, size in sizes.items() if size <= self.max_bytes}

    with StateStore(DictStorage(), incremental=False) as store:
        folder = Folder()
        store.register("folder", folder)
        for number, size in enumerate([500, 5000, 600]):
            folder.files = {"x": random.Random(number).randbytes(size)}
            store.save_state(name=f"{number}.state")
        assert removed(store.plan_retention(Frugal(3000))) == ["1.state"]


def test_a_state_with_a_damaged_marker_is_left_out_and_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    storage = DictStorage()
    filled(storage).close()
    storage.objects[commit_key(5, "4.state")] = b"damaged"
    storage.objects[commit_key(2, "1.state")] = b"damaged"
    with StateStore(storage) as store:
        for _ in range(2):
            assert removed(store.plan_retention(KeepLatest(1))) == ["0.state", "2.state"]
            assert store.protected() == {"3.state": ("the newest",)}
    assert caplog.text.count("retention passes it over") == 2


# What is read.


@pytest.mark.parametrize(
    "policy",
    [
        KeepLatest(3),
        KeepWithin(timedelta(days=1)),
        KeepPeriodic(hourly=3),
        KeepBest(2, metric="reward"),
        KeepWithinSize(10**9),
        KeepWithinSize(13_500),
    ],
)
def test_the_next_plan_reads_only_what_is_new(policy: RetentionPolicy) -> None:
    storage = WatchedStorage(DictStorage())
    with filled(storage, 12) as writer, StateStore(storage) as store:
        store.plan_retention(policy)
        kinds(storage)
        store.plan_retention(policy)
        assert kinds(storage) == {"list": 1}
        writer.save_state(name="new.state")
        kinds(storage)
        store.plan_retention(policy)
        counted = kinds(storage)
        assert counted["list"] == 1
        assert counted["get"] <= 2, "its marker, and its manifest where the size matters"
        assert counted.keys() <= {"list", "get"}


def test_protections_need_no_more_markers_than_the_newest_good_one() -> None:
    storage = WatchedStorage(DictStorage())
    with filled(storage, 12) as writer:
        for number in range(3):
            writer.save_state(name=f"crash-{number}.state", metadata={"exit": "error: KeyError"})
    with StateStore(storage) as store:
        kinds(storage)
        assert list(store.protected()) == ["crash-2.state", "11.state"]
        assert kinds(storage) == {"list": 1, "get": 1 + 4}, "the store's description, and four markers"
        store.protected()
        assert kinds(storage) == {"list": 1}


def test_what_is_gone_is_forgotten() -> None:
    storage = WatchedStorage(DictStorage())
    with filled(storage, 12) as store:
        policy = KeepWithinSize(13_500)
        plan = store.plan_retention(policy)
        store.remove(removed(plan))
        assert store.plan_retention(policy).kept == plan.kept
        assert len(store._inventory._infos) == len(plan.kept)
        assert len(store._inventory._shared._shares) <= len(plan.kept)


@pytest.mark.parametrize("fail_at", range(1, 9))
def test_a_storage_that_fails_ends_a_plan_and_the_next_one_is_right(fail_at: int) -> None:
    inner = DictStorage()
    filled(inner, 4).close()
    storage = FailingStorage(inner, fail_at=fail_at)
    with StateStore(storage) as store:
        try:
            plan = store.plan_retention(KeepWithinSize(13_000))
        except StorageError:
            plan = store.plan_retention(KeepWithinSize(13_000))
        assert removed(plan) == ["0.state", "1.state"]


def test_plans_and_sizes_on_every_backend(target: StorageTarget) -> None:
    with StateStore(target.url, storage_options=target.storage_options) as store:
        folder = Folder({"frozen": random.Random(0).randbytes(10_000)})
        store.register("folder", folder)
        for number in range(4):
            folder.files["log"] = random.Random(number).randbytes(1000)
            path = store.save_state(name=f"{number}.state")
            assert store.path(f"{number}.state") == path
        plan = store.plan_retention(KeepWithinSize(13_500))
        assert removed(plan) == ["0.state", "1.state"]
        expected = store.freed_by(state.path for state in plan.removed)
        before = stored(target)
        assert store.remove(removed(plan)).freed == expected
        after = stored(target)
        assert before - after == expected
        assert after <= 13_500
