"""Keepers by themselves, as a program without ``launch`` uses them."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from pydantic import JsonValue
from typing_extensions import override
from upath import UPath

from statevault.errors import CorruptStateError
from statevault.format.keys import commit_key
from statevault.state_persistence import (
    BestStatesKeeper,
    KeepAll,
    KeepAny,
    KeepBest,
    KeepLatest,
    KeepPeriodic,
    KeepWithin,
    KeepWithinSize,
    LatestStatesKeeper,
    PeriodicStatesKeeper,
    PolicyStatesKeeper,
    SizeBasedStatesKeeper,
    StatesKeeper,
    StateStore,
    StoreStatesKeeper,
    TimeBasedStatesKeeper,
)
from tests.servers import StorageTarget
from tests.state_persistence.components import Folder
from tests.state_persistence.storages import DictStorage, WatchedStorage


def opened(target: StorageTarget) -> tuple[StateStore, Folder]:
    store = StateStore(target.url, storage_options=target.storage_options)
    folder = Folder()
    store.register("folder", folder)
    return store, folder


def told(keeper: StatesKeeper, *paths: UPath) -> StatesKeeper:
    for path in paths:
        keeper.append(cast("Path", path))
    return keeper


def selected(keeper: StatesKeeper) -> list[str]:
    return [path.name for path in keeper.select_removal_states()]


def test_the_latest_are_kept_by_the_order_in_which_they_are_told() -> None:
    keeper = LatestStatesKeeper("", 2)
    told(keeper, *map(UPath, ["/s/9.state", "/s/best.keep", "/s/1.state", "/s/5.state"]))
    assert selected(keeper) == ["9.state"]
    assert selected(keeper) == []
    told(keeper, *map(UPath, ["/s/a.state", "/s/b.state"]))
    assert selected(keeper) == ["1.state", "5.state"]


def test_all_are_kept_when_that_is_said() -> None:
    keeper = told(LatestStatesKeeper("", -1), UPath("/s/1.state"), UPath("/s/2.state"))
    assert selected(keeper) == []


def test_the_latest_of_a_store_are_found_by_name_until_one_is_to_go() -> None:
    storage = WatchedStorage(DictStorage())
    with StateStore(storage) as store:
        for number in range(5):
            store.save_state(name=f"{number}.state")
        store.save_state(name="best.keep")
        storage.calls.clear()
        assert LatestStatesKeeper("", 1, "*.keep").select_from(store) == []
        assert LatestStatesKeeper("", 5).select_from(store) == []
        assert LatestStatesKeeper("", 4).select_from(store, resumed_from="0.state") == ["0.state"]
        assert [call.partition(" ")[0] for call in storage.calls] == ["list"] * 3
        assert LatestStatesKeeper("", 2).select_from(store) == ["0.state", "1.state", "2.state"]
        storage.calls.clear()
        store.remove(["0.state", "1.state", "2.state"])
        # The removal would have read them all: now only the one that the keeper was not to look at.
        markers = [call for call in storage.calls if call.startswith("get _vault/commits/")]
        assert markers == ["get _vault/commits/000000000006.best.keep"]


def test_damaged_states_are_not_among_the_latest_and_go_with_the_older_ones() -> None:
    storage = DictStorage()
    keeper = LatestStatesKeeper("", 2)

    def save(number: int, *, damaged: bool = False) -> list[str]:
        with StateStore(storage) as store:
            store.save_state(name=f"{number}.state")
        if damaged:
            storage.objects[commit_key(number, f"{number}.state")] = b"{"
        with StateStore(storage) as store:
            selected = keeper.select_from(store)
            with suppress(CorruptStateError):
                store.remove(selected)
            return store.names()

    assert save(1, damaged=True) == ["1.state"]
    assert save(2) == ["1.state", "2.state"]
    assert save(3) == ["2.state", "3.state"]
    assert save(4, damaged=True) == ["2.state", "3.state", "4.state"]
    assert save(5) == ["2.state", "3.state", "4.state", "5.state"], "4 may need what 2 has"
    assert save(6) == ["5.state", "6.state"]


def test_states_are_kept_within_a_size_on_every_backend(target: StorageTarget) -> None:
    store, folder = opened(target)
    with store:
        keeper = SizeBasedStatesKeeper(target.url, max_total_size_mb=0.25)
        for number in range(4):
            folder.files = {"noise": random.Random(number).randbytes(100_000)}
            told(keeper, store.save_state(name=f"{number}.state"))
        removed = list(keeper.select_removal_states())
        assert removed == [store.path("0.state"), store.path("1.state")]
        store.remove(removed)
        assert selected(keeper) == []
        told(keeper, store.save_state(name="small.state"))
        folder.files = {"noise": random.Random(9).randbytes(100_000)}
        told(keeper, store.save_state(name="more.state"))
        assert selected(keeper) == ["2.state"]


def test_shared_chunks_count_once_within_a_size(tmp_path: Path) -> None:
    with StateStore(tmp_path) as store:
        folder = Folder({"model": random.Random(0).randbytes(200_000)})
        store.register("folder", folder)
        keeper = SizeBasedStatesKeeper(tmp_path, max_total_size_mb=0.25)
        for number in range(5):
            folder.files["log"] = b"%d" % number
            told(keeper, store.save_state(name=f"{number}.state"))
        assert selected(keeper) == []


def test_a_policy_decides_on_told_states_and_sees_all(tmp_path: Path) -> None:
    with StateStore(tmp_path) as store:
        paths = [store.save_state(name=f"{number}.state", metadata={"reward": -number}) for number in range(5)]
        keeper = told(BestStatesKeeper(tmp_path, 1, "reward"), *paths[1:])
        # The best, of which it was not told, stays, and so does the newest; it may not go beyond what it was told.
        assert selected(keeper) == ["1.state", "2.state", "3.state"]
        assert selected(keeper) == []
        told(keeper, paths[0])
        assert selected(keeper) == []
        assert selected(told(PolicyStatesKeeper(KeepLatest(1)), paths[3], paths[0])) == ["0.state", "3.state"]


def test_pinned_states_are_not_selected(tmp_path: Path) -> None:
    with StateStore(tmp_path) as store:
        paths = [store.save_state(name=f"{number}.state") for number in range(3)]
        store.pin(paths[0])
        keeper = told(PolicyStatesKeeper(KeepLatest(1)), *paths)
        assert selected(keeper) == ["1.state"]
        store.unpin(paths[0])
        assert selected(keeper) == ["0.state"]


def test_a_keeper_that_was_told_of_nothing_selects_nothing() -> None:
    assert selected(TimeBasedStatesKeeper("s3://nowhere/at/all", timedelta(days=1))) == []


def test_a_keeper_is_of_one_store() -> None:
    keeper = told(PolicyStatesKeeper(KeepLatest(1)), UPath("/one/a.state"))
    with pytest.raises(ValueError, match="not of the same store"):
        told(keeper, UPath("/other/b.state"))


def test_shorthands_are_made_of_policies() -> None:
    keepers = [
        SizeBasedStatesKeeper("s", 1.5, "*.s"),
        TimeBasedStatesKeeper("s", timedelta(days=2), "*.s"),
        TimeBasedStatesKeeper("s", 90, "*.s"),
        TimeBasedStatesKeeper("s", cast("int", np.int64(90)), "*.s"),
        TimeBasedStatesKeeper("s", cast("float", np.float32(90)), "*.s"),
        BestStatesKeeper("s", 3, "eval.loss", "min", "*.s"),
        PeriodicStatesKeeper("s", hourly=24, weekly=5, state_name_pattern="*.s"),
    ]
    assert [keeper.policy for keeper in keepers] == [
        KeepWithinSize(1024 * 1536),
        KeepWithin(timedelta(days=2)),
        KeepWithin(timedelta(seconds=90)),
        KeepWithin(timedelta(seconds=90)),
        KeepWithin(timedelta(seconds=90)),
        KeepBest(3, metric="eval.loss", mode="min"),
        KeepPeriodic(hourly=24, weekly=5),
    ]
    assert {keeper.state_name_pattern for keeper in keepers} == {"*.s"}


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: LatestStatesKeeper("", 0), ValueError, "newest is never removed"),
        (lambda: SizeBasedStatesKeeper("", 0), ValueError, "max_total_size_mb must be a positive number, not 0"),
        (lambda: SizeBasedStatesKeeper("", float("nan")), ValueError, "not nan"),
        (lambda: SizeBasedStatesKeeper("", float("inf")), ValueError, "not inf"),
        (lambda: SizeBasedStatesKeeper("", 1e300), ValueError, "less than"),
        (lambda: SizeBasedStatesKeeper("", cast("float", "5")), TypeError, "must be a number, not '5'"),
        (lambda: SizeBasedStatesKeeper("", True), TypeError, "must be a number, not True"),
        (lambda: SizeBasedStatesKeeper("", cast("float", np.timedelta64(5, "D"))), TypeError, "must be a number"),
        (lambda: TimeBasedStatesKeeper("", cast("float", np.timedelta64(5, "ns"))), TypeError, "must be a timedelta"),
        (lambda: TimeBasedStatesKeeper("", True), TypeError, "must be a timedelta"),
        (lambda: TimeBasedStatesKeeper("", 10**400), ValueError, "max_age can't be"),
        (lambda: TimeBasedStatesKeeper("", 0), ValueError, "max_age must be positive"),
        (lambda: TimeBasedStatesKeeper("", float("inf")), ValueError, "max_age can't be inf"),
        (lambda: TimeBasedStatesKeeper("", float("nan")), ValueError, "max_age can't be nan"),
        (lambda: TimeBasedStatesKeeper("", cast("float", "1d")), TypeError, "max_age must be a timedelta"),
        (lambda: BestStatesKeeper("", 0, "reward"), ValueError, "at least 1"),
        (lambda: PeriodicStatesKeeper(""), ValueError, "at least 1"),
        (lambda: PolicyStatesKeeper(cast("KeepLatest", KeepLatest)), TypeError, "no retention policy"),
        (lambda: PolicyStatesKeeper(cast("KeepLatest", 5)), TypeError, "5 is no retention policy"),
    ],
)
def test_what_makes_no_sense_is_refused(make: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_policies_combine_in_a_keeper(tmp_path: Path) -> None:
    policy = KeepAny((KeepBest(1, metric="reward"), KeepAll((KeepLatest(3), KeepBest(2, metric="reward")))))
    with StateStore(tmp_path) as store:
        rewards = [9, 0, 5, 1, 7, 2]
        paths = [store.save_state(name=f"{n}.state", metadata={"reward": r}) for n, r in enumerate(rewards)]
        assert selected(told(PolicyStatesKeeper(policy), *paths)) == ["1.state", "2.state", "3.state"]


# Keepers that can't judge.


def saved(store: StateStore, *described: dict[str, JsonValue]) -> None:
    for number, metadata in enumerate(described, len(store.names())):
        store.save_state(name=f"{number}.state", metadata=metadata)


@pytest.mark.parametrize("reward", ["231.5", None, True, {"mean": 3}])
def test_a_keeper_by_a_metric_that_no_state_has_removes_nothing_and_says_so_once(
    reward: JsonValue, caplog: pytest.LogCaptureFixture
) -> None:
    with StateStore(DictStorage()) as store:
        keeper = BestStatesKeeper("", 1, "reward")
        assert keeper.select_from(store) == []
        assert caplog.text == "", "there is nothing to be judged"
        for number in range(4):
            saved(store, {"reward": reward, f"step_{number}": number})
            assert keeper.select_from(store) == []
        (warning,) = caplog.messages
        assert warning.startswith(
            f"BestStatesKeeper can't judge the states of {store.url}: no state has a finite number in its metadata at "
            f"'reward'. In 0.state it is {reward!r}, no finite number."
        )
        saved(store, {"reward": 3})
        assert keeper.select_from(store) == ["0.state", "1.state", "2.state"]
        assert len(caplog.messages) == 1


def test_a_change_of_what_a_keeper_can_not_judge_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with StateStore(DictStorage()) as store, StateStore(other_storage := DictStorage()) as other:
        other_storage.url = "dict://other"
        keeper = BestStatesKeeper("", 1, "reward")
        saved(store, {"eval_reward": 1}, {"eval_reward": 2})
        saved(other, {"eval_reward": 1})
        for _ in range(3):
            assert keeper.select_from(store) == []
            assert keeper.select_from(other) == []
        assert len(caplog.messages) == 2, "once for each store"
        saved(store, {"reward": 3})
        assert keeper.select_from(store) == ["0.state"]
        store.remove(["2.state"])
        assert keeper.select_from(store) == []
        assert len(caplog.messages) == 3


def test_a_size_bounds_the_states_that_can_not_be_judged(caplog: pytest.LogCaptureFixture) -> None:
    with StateStore(DictStorage(), incremental=False) as store:
        folder = Folder()
        store.register("folder", folder)
        policy = KeepAll((KeepBest(1, metric="rewrd"), KeepWithinSize(25_000)))
        keeper = PolicyStatesKeeper(policy)
        for number in range(6):
            folder.files = {"noise": random.Random(number).randbytes(10_000)}
            store.save_state(name=f"{number}.state", metadata={"reward": number})
            store.remove(keeper.select_from(store))
        assert store.names() == ["4.state", "5.state"]
        assert len(caplog.messages) == 1


def test_a_keeper_of_states_whose_clock_was_not_set_says_so(caplog: pytest.LogCaptureFixture) -> None:
    storage = DictStorage()
    with StateStore(storage) as store:
        saved(store, {}, {}, {})
    for key, content in storage.objects.items():
        if key.startswith("_vault/commits/"):
            storage.objects[key] = re.sub(rb'"created_at": "\d{4}-\d\d-\d\d', b'"created_at": "1970-01-01', content)
    with StateStore(storage) as store:
        for keeper in (TimeBasedStatesKeeper("", 60), PeriodicStatesKeeper("", daily=1)):
            assert keeper.select_from(store) == []
            assert keeper.select_from(store) == []
        assert len(caplog.messages) == 2
        assert "the age of no state is known" in caplog.messages[0]
        saved(store, {})
        assert TimeBasedStatesKeeper("", 60).select_from(store) == []


# Which subclasses may be asked for what is in the store, without being told.


class Careful(LatestStatesKeeper):
    """Changes what is selected."""

    @override
    def select_removal_states(self) -> list[Path]:
        return [path for path in super().select_removal_states() if path.name != "precious.state"]


class StillCareful(Careful):
    """Inherits that."""


class Five(LatestStatesKeeper):
    """Has other defaults."""

    def __init__(self) -> None:
        super().__init__("./states", 5)


class CarefulOfAll(Careful):
    """Changes it for both."""

    @override
    def select_from(self, store: StateStore, *, resumed_from: str | None = None) -> list[str]:
        names = super().select_from(store, resumed_from=resumed_from)
        return [name for name in names if name != "precious.state"]


@pytest.mark.parametrize(
    ("kind", "must_be_told"),
    [
        (LatestStatesKeeper, False),
        (SizeBasedStatesKeeper, False),
        (Five, False),
        (Careful, True),
        (StillCareful, True),
        (CarefulOfAll, False),
    ],
)
def test_a_subclass_that_changes_what_is_selected_must_be_told(
    kind: type[StoreStatesKeeper], must_be_told: bool
) -> None:
    assert kind.must_be_told is must_be_told
