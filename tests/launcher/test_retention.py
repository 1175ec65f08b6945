"""Retention of a run's states, on a storage that fails now and then."""

from __future__ import annotations

import pytest

from statevault.errors import StorageError
from statevault.launcher.retention import Retention
from statevault.state_persistence import LatestStatesKeeper, StateStore
from tests.state_persistence.storages import DictStorage, FailingStorage


def test_a_removal_that_fails_is_tried_again() -> None:
    storage = FailingStorage(DictStorage())
    with StateStore(storage) as store:
        retention = Retention(store, LatestStatesKeeper("", max_keep=1))
        retention(store.save_state(name="a.state"))
        second = store.save_state(name="b.state")
        storage.fail_at = len(storage.calls) + 1
        with pytest.raises(StorageError):
            retention(second)
        assert [info.name for info in store.states()] == ["a.state", "b.state"]
        retention(store.save_state(name="c.state"))
        assert [info.name for info in store.states()] == ["c.state"]


def test_states_of_other_names_are_neither_counted_nor_removed() -> None:
    with StateStore(DictStorage()) as store:
        store.save_state(name="best.keep")
        retention = Retention(store, LatestStatesKeeper("", max_keep=1))
        for name in ("a.state", "other.keep", "b.state"):
            retention(store.save_state(name=name))
        assert [info.name for info in store.states()] == ["best.keep", "other.keep", "b.state"]


def test_nothing_is_removed_when_all_are_to_be_kept() -> None:
    with StateStore(DictStorage()) as store:
        retention = Retention(store, LatestStatesKeeper("", max_keep=-1))
        for name in ("a.state", "b.state"):
            retention(store.save_state(name=name))
        assert len(store.states()) == 2


def test_a_keeper_that_would_keep_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="newest"):
        LatestStatesKeeper("", max_keep=0)


def test_states_of_a_crash_loop_do_not_push_out_the_last_good_one() -> None:
    with StateStore(DictStorage()) as store:
        store.save_state(name="good.state", metadata={"exit": "clean"})
        retention = Retention(store, LatestStatesKeeper("", max_keep=2))
        for number in range(5):
            retention(store.save_state(name=f"crash-{number}.state", metadata={"exit": "error: KeyError"}))
        assert [info.name for info in store.states()] == ["good.state", "crash-3.state", "crash-4.state"]
        for number in range(3):
            retention(store.save_state(name=f"good-{number}.state"))
        assert [info.name for info in store.states()] == ["good-1.state", "good-2.state"]


def test_the_state_that_a_run_resumed_from_is_kept() -> None:
    with StateStore(DictStorage()) as store:
        store.save_state(name="resumed.state")
        retention = Retention(store, LatestStatesKeeper("", max_keep=1), resumed_from="resumed.state")
        for name in ("a.state", "b.state", "c.state"):
            retention(store.save_state(name=name))
        assert [info.name for info in store.states()] == ["resumed.state", "c.state"]
