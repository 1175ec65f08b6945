"""How a save ends when something goes wrong after its marker, and when another writer has its name."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from typing_extensions import override

from statevault.errors import StateExistsError, StorageError
from statevault.format.keys import IDS, abort_key, manifest_key
from statevault.format.records import AbortRecord
from statevault.state_persistence import StateStore
from statevault.state_persistence.records import deadline
from statevault.storage import Body, ObjectInfo
from tests.state_persistence.components import Folder, some_files, store_with
from tests.state_persistence.storages import DictStorage, WatchedStorage

FILES, OTHERS = some_files(1), some_files(2)


def names(storage: DictStorage) -> list[str]:
    with StateStore(storage) as store:
        return store.names()


@pytest.mark.parametrize("from_then_on", ["list _vault/", "put _vault/sessions", "put _vault/commits"])
def test_a_process_that_gets_no_more_threads_saves_all_the_same(
    from_then_on: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    def watch(call: str) -> None:
        if call.startswith(from_then_on):
            monkeypatch.setattr(threading.Thread, "start", start)

    storage = WatchedStorage(inner := DictStorage(), watch)
    with store_with(storage, folder=Folder(FILES)) as store:
        saved = [store.save_state().name, store.save_state_async().result().name]
        monkeypatch.undo()
        assert store.names() == saved == names(inner)
    assert not [key for key in inner.objects if key.startswith("_vault/sessions")]


def test_a_fence_that_was_seen_counts_whatever_became_of_the_other_look() -> None:
    inner = DictStorage()
    failures = [StorageError("one request failed", transient=True)]

    def meddle(call: str) -> None:
        if call.startswith("put _vault/commits") and failures:
            state = call.partition("commits/")[2][13:]
            inner.put(abort_key(state), AbortRecord(state=state, by="p", at=datetime.now(UTC)).to_json())
        if call.startswith("head _vault/tombstones") and failures:
            raise failures.pop()

    with store_with(WatchedStorage(inner, meddle), folder=Folder(FILES)) as store:
        assert store.save_state().name.endswith("-2.state")


def test_what_is_visible_though_its_save_failed_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(deadline, "_clock_s", lambda: now[0])

    def watch(call: str) -> None:
        if call.startswith("delete ['_vault/sessions"):
            now[0] = 1e6
        if call.startswith("put _vault/tombstones"):
            raise StorageError("the network is down", transient=True)

    with store_with(WatchedStorage(DictStorage(), watch), folder=Folder(FILES)) as store:
        with pytest.raises(StorageError, match="the network is down") as caught:
            store.save_state()
        (note,) = caught.value.__notes__
        (name,) = store.names()
        assert note == f"{name!r} is visible, and perhaps not whole, because its save took too long: remove it"


def test_a_session_that_can_not_be_deleted_fails_no_save(caplog: pytest.LogCaptureFixture) -> None:
    def watch(call: str) -> None:
        if call.startswith("delete ['_vault/sessions"):
            raise ZeroDivisionError("a bug")

    with store_with(WatchedStorage(DictStorage(), watch), folder=Folder(FILES)) as store:
        name = store.save_state().name
        assert store.names() == [name]
    assert "a bug" in caplog.text


class Careless(DictStorage):
    """Puts what is there already as well, and whose first LIST was answered before anybody else has begun."""

    def __init__(self, objects: dict[str, bytes]) -> None:
        super().__init__()
        self.objects = objects
        self._has_listed = False

    @override
    def put(self, key: str, body: Body, *, create_only: bool = False) -> int:
        return super().put(key, body)

    @override
    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        # Of the ids it knows: without one it would list a second time.
        yield from super().list(prefix if self._has_listed or prefix != "_vault/" else IDS)
        self._has_listed |= prefix == "_vault/"


@pytest.mark.parametrize("theirs", [FILES, OTHERS | {"more": b"1"}])
def test_the_manifest_of_another_writer_of_the_name_is_noticed_and_left_alone(theirs: dict[str, bytes]) -> None:
    storage = Careless({})
    other = Careless(storage.objects)
    manifests: list[bytes] = []

    def watch(call: str) -> None:
        if call.startswith("put a.state/") and not manifests:
            with store_with(other, folder=Folder(theirs)) as store:
                store.save_state(name="a.state")
            manifests.append(storage.objects[manifest_key("a.state")])

    with store_with(WatchedStorage(storage, watch), folder=Folder(FILES)) as store:
        with pytest.raises(StateExistsError, match="another writer uses the name"):
            store.save_state(name="a.state")
        assert store.names() == ["a.state"]
    assert manifests == [storage.objects[manifest_key("a.state")]]
