"""A store that is wiped and used again under the same names, while an older process lives (``docs/format.md``, 13)."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

import pytest
from typing_extensions import override

from statevault.errors import StatePrunedError, StoreReplacedError
from statevault.format.keys import IDS
from statevault.state_persistence import KeepLatest, LatestStatesKeeper, RetentionPolicy, StatesKeeper, StateStore
from statevault.state_persistence.keepers import Retention
from statevault.storage import Body, ObjectInfo, Storage, StorageWrapper, open_storage
from tests.servers import Servers
from tests.state_persistence.components import Files, Folder, store_with
from tests.state_persistence.last_two import LastTwo
from tests.state_persistence.storages import DictStorage, WatchedStorage

MIB = 1024**2


def model(seed: int) -> Files:
    """Two large files, one of which never changes within a run."""
    run, step = divmod(seed, 100)
    return {"frozen.bin": bytes([run]) * MIB, "weights.bin": bytes([run, step]) * 2000}


def wipe(storage: Storage) -> None:
    storage.delete([info.key for info in storage.list()])


def save(storage: Storage | str, first: int, count: int = 2) -> None:
    """A run of its own process: ``epoch-1.state``, ``epoch-2.state``, …"""
    folder = Folder()
    with store_with(storage, folder=folder) as store:
        for number in range(1, count + 1):
            folder.files = model(first + number)
            store.save_state(name=f"epoch-{number}.state")


def whole(storage: Storage | str) -> dict[str, Files]:
    """What a new process loads from each state, every byte of which is verified."""
    found = {}
    folder = Folder()
    with store_with(storage, folder=folder) as store:
        for name in store.names():
            store.verify(name)
            store.load_state(name)
            found[name] = dict(folder.files)
    return found


SECOND_RUN = {"epoch-1.state": model(201), "epoch-2.state": model(202)}


class OlderProcess:
    """A process that has saved and looked at everything before the store is wiped."""

    def __init__(self, storage: Storage | str) -> None:
        self.folder = Folder()
        self.store = store_with(storage, folder=self.folder)
        for number in (1, 2, 3):
            self.folder.files = model(100 + number)
            self.store.save_state(name=f"epoch-{number}.state")
        self.store.verify("epoch-1.state")
        self.store.freed_by(["epoch-1.state"])
        self.store.states()


@pytest.fixture(params=["dict", "local", "juicefs", "moto", "fake-gcs"])
def storage(request: pytest.FixtureRequest, servers: Servers) -> Storage:
    if request.param == "dict":
        return DictStorage()
    target = servers.target(request.param)
    return open_storage(target.url, target.storage_options)


def test_the_next_save_is_whole_and_refers_to_nothing_that_was_known_before(storage: Storage) -> None:
    older = OlderProcess(storage)
    wipe(storage)
    save(storage, 200)
    older.store.save_state(name="late.state")
    assert whole(storage) == SECOND_RUN | {"late.state": model(103)}
    assert older.store.info("late.state").sequence == 3


def test_a_removal_by_names_that_were_known_before_removes_nothing_and_says_so(storage: Storage) -> None:
    older = OlderProcess(storage)
    wipe(storage)
    save(storage, 200)
    for _ in range(2):
        with pytest.raises(StoreReplacedError, match="was wiped"):
            older.store.remove(["epoch-1.state"])
    assert whole(storage) == SECOND_RUN
    assert older.store.names() == ["epoch-1.state", "epoch-2.state"]
    assert older.store.remove(["epoch-1.state"]).removed == ("epoch-1.state",)
    assert whole(storage) == {"epoch-2.state": model(202)}


@pytest.mark.parametrize("between", ["save", "load", "protected"])
def test_what_notices_the_other_store_does_not_make_old_names_count_in_it(between: str) -> None:
    storage = DictStorage()
    older = OlderProcess(storage)
    wipe(storage)
    save(storage, 200)
    if between == "save":
        older.store.save_state(name="epoch-4.state")
    elif between == "load":
        older.store.load_state()
    else:
        older.store.protected()
    assert older.store.generation == 1
    with pytest.raises(StoreReplacedError):
        older.store.remove(["epoch-1.state"])
    assert whole(storage).items() >= SECOND_RUN.items()


def test_a_removal_takes_no_chunks_that_the_new_states_need(storage: Storage) -> None:
    """As the process remembers them, they share nothing."""
    folder = Folder(model(101))
    older = store_with(storage, folder=folder)
    older.save_state(name="epoch-1.state")
    folder.files = model(302)
    older.save_state(name="epoch-2.state")
    older.remove(["nothing.state"])
    wipe(storage)
    save(storage, 200)
    assert older.info("epoch-2.state").base == "epoch-1.state"
    assert older.names() == ["epoch-1.state", "epoch-2.state"]
    older.remove(["epoch-1.state"])
    older.gc()
    assert whole(storage) == {"epoch-2.state": model(202)}


def test_the_new_states_are_listed_verified_and_loaded_as_they_are(storage: Storage) -> None:
    older = OlderProcess(storage)
    wipe(storage)
    save(storage, 200)
    assert [state.size for state in older.store.states()] == [sum(map(len, model(200).values()))] * 2
    older.store.verify("epoch-1.state")
    older.store.load_state("epoch-2.state")
    assert older.folder.files == model(202)
    older.store.load_state("latest")
    assert older.folder.files == model(202)


def test_a_store_that_was_wiped_and_not_used_again_is_a_new_one(
    storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    older = OlderProcess(storage)
    before = set(storage_ids(storage))
    wipe(storage)
    with caplog.at_level(logging.WARNING):
        older.store.save_state(name="epoch-1.state")
    assert "was wiped: everything cached about it is dropped" in caplog.text
    assert whole(storage) == {"epoch-1.state": model(103)}
    assert before.isdisjoint(storage_ids(storage))


def storage_ids(storage: Storage) -> list[str]:
    return [info.key for info in storage.list(IDS)]


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize(
    "when", ["put _vault/sessions", "put *.state/folder/weights", "list _vault/ids/", "list *.state/"]
)
@pytest.mark.parametrize("used_again", [True, False])
def test_a_save_under_way_fails_and_begins_again(when: str, used_again: bool, named: bool) -> None:
    inner = DictStorage()
    happened: list[str] = []
    armed = False

    def watch(call: str) -> None:
        if armed and not happened and fnmatchcase(call, f"{when}*"):
            happened.append(call)
            wipe(inner)
            if used_again:
                save(inner, 200)

    older = OlderProcess(WatchedStorage(inner, watch))
    armed = True
    older.folder.files = model(104)
    saved = older.store.save_state(name="epoch-4.state" if named else None).name
    assert happened
    assert whole(inner) == (SECOND_RUN if used_again else {}) | {saved: model(104)}
    folders = {key.partition("/")[0] for key in inner.objects} - {"_vault"}
    assert folders == {*whole(inner)}, "nothing is left of the first try"


def test_a_store_that_is_wiped_again_and_again_is_an_error() -> None:
    inner = DictStorage()

    def watch(call: str) -> None:
        if call.startswith("put _vault/sessions"):
            wipe(inner)

    with store_with(WatchedStorage(inner, watch), folder=Folder(model(1))) as store:
        with pytest.raises(StoreReplacedError, match="was wiped just now"):
            store.save_state()
        assert store.names() == []


def test_what_is_read_while_the_store_is_wiped_has_gone_and_is_not_called_damaged() -> None:
    inner = DictStorage()
    armed = False

    def watch(call: str) -> None:
        nonlocal armed
        if armed and call.startswith("get epoch-1.state/"):
            armed = False
            wipe(inner)
            save(inner, 200)

    storage = WatchedStorage(inner, watch)
    older = OlderProcess(storage)
    armed = True
    with pytest.raises(StatePrunedError):
        older.store.verify("epoch-1.state")
    older.store.verify("epoch-1.state")
    wipe(inner)
    save(inner, 300)
    armed = True
    older.store.load_state("latest")
    assert older.folder.files in (model(302), model(202))


@pytest.mark.parametrize(
    "when", ["put _vault/intents", "list _vault/pins/", "list _vault/sessions/", "list _vault/commits/"]
)
def test_a_prune_under_way_does_no_harm_to_another_store(when: str) -> None:
    inner = DictStorage()
    happened: list[str] = []
    armed = False

    def watch(call: str) -> None:
        if armed and not happened and call.startswith(when):
            happened.append(call)
            wipe(inner)
            save(inner, 200)

    older = OlderProcess(WatchedStorage(inner, watch))
    armed = True
    with suppress(StoreReplacedError):
        older.store.remove(["epoch-1.state", "epoch-2.state"])
    assert happened
    assert whole(inner) == SECOND_RUN
    assert not [key for key in inner.objects if key.startswith("_vault/intents")]


@pytest.mark.parametrize("make", [LastTwo, partial(LatestStatesKeeper, "ignored", 2), partial(KeepLatest, 2)])
@pytest.mark.parametrize("noticed", ["by a save", "by the removal"])
def test_retention_begins_again_in_the_store_that_lies_there_now(
    make: Callable[[], StatesKeeper | RetentionPolicy], noticed: str
) -> None:
    storage = DictStorage()
    old = OlderProcess(storage)
    retention = Retention(old.store, make())
    retention()
    assert old.store.names() == ["epoch-2.state", "epoch-3.state"]
    old.folder.files = model(104)
    unnoticed = old.store.save_state(name="epoch-4.state")
    wipe(storage)
    save(storage, 200, count=2)
    if noticed == "by a save":
        old.folder.files = model(301)
        retention(old.store.save_state(name="epoch-9.state"))
        expected = ["epoch-2.state", "epoch-9.state"]
    else:
        with suppress(StoreReplacedError):
            retention(unnoticed)
        expected = ["epoch-1.state", "epoch-2.state"]
    retention()
    assert old.store.names() == expected
    assert whole(storage).keys() == set(expected)
    for number in (3, 4):
        old.folder.files = model(300 + number)
        retention(old.store.save_state(name=f"epoch-{number}.state"))
    assert old.store.names() == ["epoch-3.state", "epoch-4.state"]


def test_a_state_out_of_a_backup_is_known_by_its_stamp(tmp_path: Path) -> None:
    """The store has its old id; only size and instant tell."""
    root, backup = tmp_path / "store", tmp_path / "backup"
    older = OlderProcess(str(root))
    older.store.remove(["epoch-3.state"])
    shutil.copytree(root, backup)
    older.folder.files = model(107)
    older.store.save_state(name="epoch-7.state")
    older.store.states()
    shutil.rmtree(root)
    shutil.copytree(backup, root)
    folder = Folder(model(207))
    with store_with(str(root), folder=folder) as store:
        store.save_state(name="epoch-7.state")
    older.store.verify("epoch-7.state")
    assert older.store.info("epoch-7.state") == StateStore(root).info("epoch-7.state")
    older.folder.files = model(107) | {"more.bin": b"more" * 500}
    older.store.save_state(name="epoch-8.state")
    assert whole(str(root))["epoch-7.state"] == model(207)
    assert whole(str(root))["epoch-8.state"] == older.folder.files


def test_a_base_whose_objects_were_put_back_is_not_relied_on(tmp_path: Path) -> None:
    """The base is what the process has saved itself, and never read."""
    root = tmp_path / "store"
    folder = Folder(model(101))
    older = store_with(str(root), folder=folder)
    older.save_state(name="epoch-1.state")
    keys = [path for path in (root / "epoch-1.state").rglob("*") if path.is_file()]
    for path in keys:
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(bytes(len(content)))  # another run's, of the same size
    folder.files = model(102)
    older.save_state(name="epoch-2.state")
    older.verify("epoch-2.state")


def test_copies_of_a_store_share_ids_and_are_two_stores(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    save(str(one), 100)
    shutil.copytree(one, two)
    with store_with(str(one), folder=Folder()) as store:
        store.load_state("epoch-2.state")
        store.load_state(str(two / "epoch-1.state"))
        store.remove(["epoch-1.state"])
        assert store.names() == ["epoch-2.state"]
        store.verify(str(two / "epoch-1.state"))


def test_savers_that_begin_at_the_same_time_leave_several_ids_and_none_is_ever_put_again() -> None:
    inner = DictStorage()
    done: list[bool] = []

    def watch(call: str) -> None:
        if call.startswith("put _vault/ids") and not done:
            done.append(True)
            save(inner, 100, count=1)

    with store_with(WatchedStorage(inner, watch), folder=Folder(model(1))) as store:
        store.save_state()
        store.save_state()
        ids = storage_ids(inner)
        assert len(ids) == 2
        save(inner, 100, count=0)
        store.save_state()
        store.gc()
        assert storage_ids(inner) == ids
        assert len(store.names()) == 4


def legacy(storage: DictStorage) -> None:
    """What a version has left that knew no ids."""
    save(storage, 100)
    storage.delete(storage_ids(storage))


def test_a_store_without_an_id_gets_one_and_is_built_on(caplog: pytest.LogCaptureFixture) -> None:
    storage = DictStorage()
    legacy(storage)
    folder = Folder()
    with store_with(storage, folder=folder) as store:
        store.load_state("latest")
        store.save_state(name="next.state")
        assert len(storage_ids(storage)) == 1
        assert store.info("next.state").base == "epoch-2.state"
        assert store.info("next.state").new_size == 0
    assert "wiped" not in caplog.text


class WithoutIds(StorageWrapper):
    """A store as the version before ids sees it: none but the one that it makes itself, which nobody else sees."""

    own: str | None = None

    @override
    def put(self, key: str, body: Body, *, create_only: bool = False) -> int:
        if key.startswith(IDS):
            self.own = key
            return 0
        return super().put(key, body, create_only=create_only)

    @override
    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        if self.own is not None and self.own.startswith(prefix):
            yield ObjectInfo(self.own, 0)
        yield from (info for info in super().list(prefix) if not info.key.startswith(IDS))


def test_a_process_of_the_version_before_works_beside_one_of_today() -> None:
    storage = DictStorage()
    save(storage, 100)
    with (
        store_with(WithoutIds(storage), folder=(old := Folder(model(103)))) as before,
        store_with(storage, folder=(new := Folder(model(104)))) as today,
    ):
        for number in range(3):
            old.files, new.files = model(110 + number), model(120 + number)
            before.save_state(name=f"before-{number}.state")
            today.save_state(name=f"today-{number}.state")
        before.names()  # it knows nothing of ids: no store is another one
        before.remove(["epoch-1.state", "today-0.state"])
        today.remove(["epoch-2.state", "before-0.state"])
        before.gc()
        today.gc()
    assert set(whole(storage)) == {f"{which}-{number}.state" for which in ("before", "today") for number in (1, 2)}
