"""Keepers applied to a store: the built-in ones, those of users, and on a storage that fails now and then."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

import pytest
from typing_extensions import override
from upath import UPath

from statevault.errors import StateVaultError, StorageError
from statevault.state_persistence import (
    BestStatesKeeper,
    Holdings,
    KeepAny,
    KeepBest,
    KeepLatest,
    KeepPeriodic,
    LatestStatesKeeper,
    PeriodicStatesKeeper,
    PolicyStatesKeeper,
    SizeBasedStatesKeeper,
    StatesKeeper,
    StateStore,
    TimeBasedStatesKeeper,
)
from statevault.state_persistence.keepers import Retention
from tests.servers import StorageTarget
from tests.state_persistence.components import Folder
from tests.state_persistence.storages import DictStorage, FailingStorage, Failure, WatchedStorage

ERROR = {"exit": "error: KeyError"}


class OneLess(StatesKeeper):
    """Keeps the last `keep` of what it was told; notes what that was."""

    def __init__(self, keep: int = 1) -> None:
        self.keep = keep
        self.told: list[str] = []
        self.paths: list[Path] = []

    @override
    def append(self, path: Path) -> None:
        self.told.append(path.name)
        self.paths.append(path)

    @override
    def select_removal_states(self) -> Iterable[Path]:
        while len(self.paths) > self.keep:
            yield self.paths.pop(0)


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


@pytest.mark.parametrize("keeper", [LatestStatesKeeper("", 1), PolicyStatesKeeper(KeepLatest(1)), OneLess()])
@pytest.mark.parametrize("failure", [Failure.NO_EFFECT, Failure.LOST_ANSWER])
def test_a_removal_that_fails_anywhere_is_ended_by_the_next_call(keeper: StatesKeeper, failure: Failure) -> None:
    fail_at, reached = 0, True
    while reached:
        fail_at += 1
        storage = FailingStorage(inner := DictStorage(), failure=failure)
        with StateStore(storage) as store:
            retention = Retention(store, OneLess() if isinstance(keeper, OneLess) else keeper)
            store.save_state(name="a.state")
            retention(store.save_state(name="b.state"))
            path = store.save_state(name="c.state")
            storage.fail_at = len(storage.calls) + fail_at
            try:
                retention(path)
            except StorageError:
                retention(None)
            reached = len(storage.calls) >= storage.fail_at
            storage.fail_at = 0
            assert store.names() == ["c.state"]
            folders = {key.partition("/")[0] for key in inner.objects}
            assert folders == {"_vault", "c.state"}, f"call {fail_at} failed, and something was left behind"
    assert fail_at > 8


def test_a_policy_is_taken_as_a_keeper_and_nothing_else_is() -> None:
    with StateStore(DictStorage()) as store:
        retention = Retention(store, KeepLatest(1))
        for name in ("a.state", "b.state"):
            retention(store.save_state(name=name))
        assert store.names() == ["b.state"]
        with pytest.raises(TypeError, match="is no retention policy"):
            Retention(store, 3)  # type: ignore[arg-type]


def test_a_state_whose_save_failed_too_late_is_told_to_a_keeper_when_the_store_was_looked_at() -> None:
    with StateStore(DictStorage()) as store:
        keeper = OneLess(3)
        retention = Retention(store, keeper)
        retention(store.save_state(name="a.state"))
        path = store.save_state(name="b.state")  # as if it had failed
        retention.look_again()
        retention(store.save_state(name="c.state"))
        retention(path)
        assert keeper.told == ["a.state", "b.state", "c.state"]
        retention(store.save_state(name="d.state"))
        assert store.names() == ["b.state", "c.state", "d.state"]


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


KEEP_TWO = [
    LatestStatesKeeper("", max_keep=2),
    PolicyStatesKeeper(KeepLatest(2)),
    OneLess(2),
]


@pytest.mark.parametrize("keeper", KEEP_TWO)
def test_states_of_a_crash_loop_do_not_push_out_the_last_good_one(keeper: StatesKeeper) -> None:
    keeper = OneLess(2) if isinstance(keeper, OneLess) else keeper
    with StateStore(DictStorage()) as store:
        store.save_state(name="good.state", metadata={"exit": "clean"})
        retention = Retention(store, keeper)
        for number in range(5):
            retention(store.save_state(name=f"crash-{number}.state", metadata=ERROR))
        assert [info.name for info in store.states()] == ["good.state", "crash-3.state", "crash-4.state"]
        for number in range(3):
            retention(store.save_state(name=f"good-{number}.state"))
        assert [info.name for info in store.states()] == ["good-1.state", "good-2.state"]


@pytest.mark.parametrize("keeper", KEEP_TWO)
def test_the_state_that_a_run_resumed_from_and_pinned_ones_are_kept(
    keeper: StatesKeeper, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    keeper = OneLess(2) if isinstance(keeper, OneLess) else keeper
    with StateStore(DictStorage()) as store:
        store.save_state(name="resumed.state")
        store.save_state(name="pinned.state")
        store.pin("pinned.state", "paper")
        retention = Retention(store, keeper, resumed_from="resumed.state")
        for name in ("a.state", "b.state", "c.state"):
            retention(store.save_state(name=name))
        assert store.names() == ["resumed.state", "pinned.state", "b.state", "c.state"]
        if not isinstance(keeper, PolicyStatesKeeper):
            assert caplog.text.count("selected pinned.state, which stays: pinned as 'paper'") == 1
            assert caplog.text.count("selected resumed.state, which stays: the run has resumed from it") == 1
        store.unpin("pinned.state")
        retention()
        assert store.names() == ["resumed.state", "b.state", "c.state"]


def test_the_newest_stays_until_there_is_a_newer_one() -> None:
    with StateStore(DictStorage()) as store:
        retention = Retention(store, OneLess(0))
        for name in ("a.state", "b.state", "c.state"):
            retention(store.save_state(name=name))
            assert store.names() == [name]


# Built-in keepers.


def test_built_in_keepers_see_what_others_have_saved_and_removed() -> None:
    storage = DictStorage()
    with StateStore(storage) as store, StateStore(storage) as other:
        retention = Retention(store, LatestStatesKeeper("", max_keep=3))
        for name in ("a.state", "b.state", "c.state"):
            retention(store.save_state(name=name))
        other.remove(["c.state"])
        retention(store.save_state(name="d.state"))
        assert store.names() == ["a.state", "b.state", "d.state"], "three are left, as somebody took one away"
        other.save_state(name="e.state")
        retention()
        assert store.names() == ["b.state", "d.state", "e.state"]


@pytest.mark.parametrize(
    ("keeper", "kept"),
    [
        (SizeBasedStatesKeeper("", 13_500 / 1024**2), ["6", "7"]),
        (TimeBasedStatesKeeper("", timedelta(days=1)), list("01234567")),
        (BestStatesKeeper("", 2, "reward"), ["3", "4", "7"]),
        (PeriodicStatesKeeper("", yearly=1), ["7"]),
        (PolicyStatesKeeper(KeepAny((KeepLatest(2), KeepBest(1, metric="reward")))), ["3", "6", "7"]),
    ],
)
def test_each_keeper_keeps_what_its_policy_says(keeper: StatesKeeper, kept: list[str]) -> None:
    storage = DictStorage()
    with StateStore(storage) as store:
        folder = Folder({"frozen": random.Random(0).randbytes(10_000)})
        store.register("folder", folder)
        retention = Retention(store, keeper)
        for number, reward in enumerate([1, 2, 3, 9, 8, 0, 5, 4]):
            folder.files["log"] = random.Random(number).randbytes(1000)
            retention(store.save_state(name=f"{number}.state", metadata={"reward": reward}))
        assert [name.removesuffix(".state") for name in store.names()] == kept
        if isinstance(keeper, SizeBasedStatesKeeper):
            data = sum(len(content) for key, content in storage.objects.items() if not key.startswith("_vault/"))
            assert data <= 13_500
        for name in store.names():
            store.verify(name)


def test_a_keeper_works_on_every_backend(target: StorageTarget) -> None:
    with StateStore(target.url, storage_options=target.storage_options) as store:
        folder = Folder({"frozen": random.Random(0).randbytes(10_000)})
        store.register("folder", folder)
        for keeper in (SizeBasedStatesKeeper(target.url, 0.013), OneLess(2), LatestStatesKeeper(target.url, 2)):
            retention = Retention(store, keeper)
            for number in range(3):
                folder.files["log"] = random.Random(number).randbytes(1000)
                retention(store.save_state())
            assert len(store.names()) == 2
            assert store.verify().name == store.names()[-1]


def test_a_policy_that_fails_is_reported_with_its_keeper() -> None:
    class Broken:
        def keep(self, holdings: Holdings) -> dict[str, str]:
            raise LookupError("no idea")

    with StateStore(DictStorage()) as store:
        retention = Retention(store, PolicyStatesKeeper(Broken()))
        with pytest.raises(StateVaultError, match=r"PolicyStatesKeeper\.select_from\(\) failed: LookupError") as caught:
            retention(store.save_state())
        assert isinstance(caught.value.__cause__, LookupError)


# Keepers of users.


def test_a_keeper_is_told_of_every_state_once_in_order() -> None:
    with StateStore(DictStorage()) as store:
        store.save_state(name="z.state")
        store.save_state(name="y.state")
        keeper = OneLess(9)
        retention = Retention(store, keeper)
        assert keeper.told == [], "the store is looked at in the background"
        first, second = store.save_state(name="b.state"), store.save_state(name="a.state")
        for path in (first, None, second, second):
            retention(path)
        assert keeper.told == ["z.state", "y.state", "b.state", "a.state"]
        retention(store.save_state(name="0.state"))
        assert keeper.told[4:] == ["0.state"]
        assert keeper.paths == [store.path(name) for name in keeper.told]


def test_a_keeper_is_asked_without_a_new_state_as_well() -> None:
    with StateStore(DictStorage()) as store:
        keeper = OneLess(3)
        retention = Retention(store, keeper)
        for name in ("a.state", "b.state", "c.state"):
            retention(store.save_state(name=name))
        keeper.keep = 2
        retention()
        assert store.names() == ["b.state", "c.state"]


def test_what_a_keeper_raises_is_reported_with_its_name_and_it_is_told_again() -> None:
    class Moody(OneLess):
        mood = ""

        @override
        def append(self, path: Path) -> None:
            if self.mood == "append":
                raise OSError("can't look at it")
            super().append(path)

        @override
        def select_removal_states(self) -> Iterable[Path]:
            yield from super().select_removal_states()
            if self.mood == "select":
                raise LookupError("lost count")

    with StateStore(DictStorage()) as store:
        keeper = Moody(2)
        retention = Retention(store, keeper)
        retention(store.save_state(name="a.state"))
        keeper.mood = "append"
        for name in ("b.state", "c.state"):
            with pytest.raises(StateVaultError, match=r"Moody\.append\(\) failed: OSError\(\"can't look at it\"\)"):
                retention(store.save_state(name=name))
        assert keeper.told == ["a.state"]
        keeper.mood = "select"
        with pytest.raises(StateVaultError, match=r"Moody\.select_removal_states\(\) failed: LookupError") as caught:
            retention(store.save_state(name="d.state"))
        assert isinstance(caught.value.__cause__, LookupError)
        assert keeper.told == ["a.state", "b.state", "c.state", "d.state"]
        assert store.names() == ["c.state", "d.state"], "what it selected before it failed is removed"


def test_what_is_no_state_of_the_store_is_reported_and_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Confused(StatesKeeper):
        def __init__(self, *selected: object) -> None:
            self.selected = selected

        @override
        def append(self, path: Path) -> None:
            pass

        @override
        def select_removal_states(self) -> Iterable[Path]:
            return self.selected  # type: ignore[return-value]

    caplog.set_level("INFO")
    precious = tmp_path / "elsewhere" / "a.state"
    precious.mkdir(parents=True)
    (precious / "weights").write_bytes(b"1")
    with StateStore(tmp_path / "elsewhere.vault") as other, StateStore(tmp_path / "store") as store:
        other.save_state(name="a.state")
        store.save_state(name="a.state")
        store.save_state(name="gone.state")
        store.remove(["gone.state"])
        (tmp_path / "store" / "mine").mkdir()
        foreign = [precious, other.path("a.state"), "", None, 5, UPath("memory://x/a.state"), tmp_path / "store"]
        keeper = Confused(*foreign, store.path("gone.state"), tmp_path / "store" / "mine", store.path("b.state"))
        Retention(store, keeper)(store.save_state(name="b.state"))
        assert store.names() == ["a.state", "b.state"]
        assert other.names() == ["a.state"]
    assert (precious / "weights").exists()
    assert (tmp_path / "store" / "mine").exists()
    reported = [record.getMessage() for record in caplog.records if "Confused selected" in record.getMessage()]
    assert sum("which is no state of" in message for message in reported) == len(foreign)
    assert sum("gone.state, which is not in" in message for message in reported) == 1
    assert sum("mine, which is not in" in message for message in reported) == 1
    assert sum("b.state, which stays: the newest" in message for message in reported) == 1


def test_a_built_in_keeper_that_a_user_has_changed_is_asked_as_the_user_wrote_it() -> None:
    class Careful(LatestStatesKeeper):
        @override
        def select_removal_states(self) -> list[Path]:
            return [path for path in super().select_removal_states() if path.name != "precious.state"]

    with StateStore(DictStorage()) as store:
        retention = Retention(store, Careful("", 1))
        for name in ("precious.state", "a.state", "b.state", "c.state"):
            retention(store.save_state(name=name))
        assert store.names() == ["precious.state", "c.state"]


# What retention costs.


def calls(storage: WatchedStorage) -> Counter[str]:
    """How many calls of each kind there were, and forget them."""
    counted = Counter(call.partition(" ")[0] for call in storage.calls)
    storage.calls.clear()
    return counted


@pytest.mark.parametrize("count", [4, 40])
@pytest.mark.parametrize(
    "make",
    [
        lambda: LatestStatesKeeper("", 1000),
        lambda: SizeBasedStatesKeeper("", 1000),
        lambda: TimeBasedStatesKeeper("", timedelta(days=1)),
        lambda: BestStatesKeeper("", 1000, "reward"),
        lambda: PolicyStatesKeeper(KeepAny((KeepLatest(1000), KeepPeriodic(daily=3)))),
        lambda: OneLess(1000),
    ],
)
def test_a_save_that_removes_nothing_costs_one_list_and_one_read(make: type[OneLess], count: int) -> None:
    storage = WatchedStorage(DictStorage())
    with StateStore(storage) as store:
        store.register("folder", Folder({"frozen": bytes(1000)}))
        for _ in range(count):
            store.save_state(metadata={"reward": 1})
        retention = Retention(store, make())
        retention(store.save_state(metadata={"reward": 1}))
        path = store.save_state(metadata={"reward": 1})
        calls(storage)
        retention(path)
        counted = calls(storage)
        assert counted["list"] <= 1
        assert counted["get"] <= 1
        assert counted.keys() <= {"list", "get"}
        retention()
        assert calls(storage).keys() <= {"list"}


@pytest.mark.parametrize(
    "make",
    [
        lambda count: LatestStatesKeeper("", count),
        lambda count: SizeBasedStatesKeeper("", count * 1.6 / 1024),
        lambda count: PolicyStatesKeeper(KeepLatest(count)),
        OneLess,
    ],
)
def test_a_save_that_removes_one_costs_the_same_however_many_are_kept(make: type[OneLess]) -> None:
    costs = []
    for count in (5, 30):
        storage = WatchedStorage(DictStorage())
        with StateStore(storage, incremental=False) as store:
            folder = Folder()
            store.register("folder", folder)
            retention = Retention(store, make(count))
            for number in range(count + 5):
                folder.files = {"x": random.Random(number).randbytes(1200)}
                path = store.save_state()
                if number < count + 4:
                    retention(path)
            before = store.names()
            calls(storage)
            retention(path)
            costs.append(calls(storage))
            assert len(store.names()) == len(before) - 1
    assert costs[0] == costs[1]


def test_the_newest_are_kept_without_reading_the_markers_of_all() -> None:
    storage = WatchedStorage(DictStorage())
    with StateStore(storage) as store:
        for _ in range(30):
            store.save_state()
    with StateStore(storage) as store:
        oldest = store.names()[0]
        retention = Retention(store, LatestStatesKeeper("", 30), resumed_from=oldest)
        path = store.save_state()
        storage.calls.clear()
        retention(path)
        assert len(store.names()) == 31
        assert [call for call in storage.calls if call.startswith("get")] == [
            f"get _vault/commits/{31:012}.{path.name}"
        ]
