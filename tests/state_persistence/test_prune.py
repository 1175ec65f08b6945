"""Removing states beside writers: fenced saves, live sessions, shared objects, pins."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from typing_extensions import override

from statevault.codecs import compress_chunk, digest
from statevault.errors import SaveFencedError, StatePrunedError, StorageTimeoutError
from statevault.format.keys import (
    StateKey,
    abort_key,
    commit_key,
    manifest_key,
    session_key,
    tombstone_key,
)
from statevault.format.records import AbortRecord, ManifestRef, SessionRecord
from statevault.state_persistence import StateStore
from statevault.state_persistence.pruning.prune import prune
from statevault.state_persistence.pruning.removal import remove_states
from statevault.state_persistence.records import deadline
from statevault.state_persistence.records.catalog import Catalog
from statevault.state_persistence.records.sessions import STALE_AFTER
from statevault.state_persistence.restore.download import StateReader
from statevault.storage import Body
from tests.state_persistence.components import Folder, some_files, store_with
from tests.state_persistence.storages import DictStorage, WatchedStorage

OLD, NEW = some_files(1), some_files(2)
NOW = datetime.now(UTC)
NOT_ACKNOWLEDGED = "_vault/probe/not-acknowledged"


class MeddlingStorage(DictStorage):
    """Does something just before a put of a key with a given prefix, once."""

    def __init__(self, prefix: str, meddle: Callable[[DictStorage, str], None]) -> None:
        super().__init__()
        self.prefix = prefix
        self.meddle: Callable[[DictStorage, str], None] | None = meddle

    @override
    def put(self, key: str, body: Body, *, create_only: bool = False) -> int:
        if key.startswith(self.prefix) and self.meddle is not None:
            meddle, self.meddle = self.meddle, None
            meddle(self, key)
        return super().put(key, body, create_only=create_only)


def give_up_everything(storage: DictStorage, key: str) -> None:
    """A prune that takes every writer for dead."""
    prune(storage, Catalog(storage), [], by="pruner", reason="test", stale_after=timedelta(0))


def test_a_save_that_was_given_up_before_its_marker_is_made_again_under_a_new_name() -> None:
    storage = MeddlingStorage("_vault/commits/", give_up_everything)
    folder = Folder(NEW)
    with store_with(storage, folder=folder) as store:
        path = store.save_state()
        (info,) = store.states()
        assert info.name == path.name
        assert len(Catalog(storage).listing().tombstones) == 1
        folder.files = {}
        store.load_state("latest")
        assert folder.files == NEW
    give_up_everything(storage, "")
    assert {key.partition("/")[0] for key in storage.objects} == {"_vault", path.name}


def test_a_save_under_a_given_name_that_was_given_up_says_so() -> None:
    storage = MeddlingStorage("_vault/commits/", give_up_everything)
    with store_with(storage, folder=Folder(NEW)) as store:
        with pytest.raises(SaveFencedError, match=r"mine\.state"):
            store.save_state(name="mine.state")
        assert store.states() == []


def test_a_save_whose_data_was_taken_by_a_prune_is_never_visible() -> None:
    storage = MeddlingStorage("new.state/manifest", give_up_everything)
    with store_with(storage, folder=Folder(NEW)) as store:
        with pytest.raises(SaveFencedError):
            store.save_state(name="new.state")
        assert store.states() == []


def test_a_marker_that_comes_before_the_verdict_is_honoured() -> None:
    def late_abort(storage: DictStorage, key: str) -> None:
        """The prune has put its abort, and the marker lands before it looks."""
        record = AbortRecord(state="new.state", by="pruner", at=NOW)
        storage.objects[abort_key("new.state")] = record.to_json()

    storage = MeddlingStorage("_vault/commits/", late_abort)
    with store_with(storage, folder=Folder(NEW)) as store:
        with pytest.raises(SaveFencedError):
            store.save_state(name="new.state")
        give_up_everything(storage, "")
        assert [info.name for info in store.states()] == ["new.state"]
        store.verify("new.state")


@pytest.mark.parametrize("stands_still_at", ["new.state/", "new.state/manifest", "_vault/commits/"])
def test_a_writer_that_stood_still_for_days_gives_up(stands_still_at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Aborts and tombstones are not kept for ever: whoever missed them must not become visible."""
    days = 0.0
    monkeypatch.setattr(deadline, "_clock_s", lambda: days * 86400)

    def sleep(storage: DictStorage, key: str) -> None:
        nonlocal days
        days += 9

    storage = MeddlingStorage(stands_still_at, sleep)
    with store_with(storage, folder=Folder(NEW)) as store:
        with pytest.raises(StorageTimeoutError, match=r"new\.state.*took longer than 1 day"):
            store.save_state(name="new.state")
        assert store.states() == []
        store.save_state(name="next.state")
    give_up_everything(storage, "")
    assert {key.partition("/")[0] for key in storage.objects} == {"_vault", "next.state"}


def test_a_prune_leaves_young_sessions_and_their_objects_alone() -> None:
    taken: list[set[str]] = []

    def ordinary_prune(storage: DictStorage, key: str) -> None:
        before = set(storage.objects)
        prune(storage, Catalog(storage), [], by="pruner", reason="test")
        taken.append(before - set(storage.objects))

    for prefix in ("new.state/", "new.state/manifest", "_vault/commits/"):
        storage = MeddlingStorage(prefix, ordinary_prune)
        with store_with(storage, folder=Folder(NEW)) as store:
            store.save_state(name="new.state")
            store.verify("new.state")
    assert taken == [set(), set(), set()]


def test_a_pinned_state_is_not_removed() -> None:
    storage = DictStorage()
    with store_with(storage, folder=Folder(OLD)) as store:
        store.save_state(name="pinned.state")
        store.save_state(name="other.state")
        store.pin("pinned.state", "best")
        result = store.remove(["pinned.state", "other.state"])
        assert (result.removed, result.spared) == (("other.state",), ("pinned.state",))
        store.verify("pinned.state")


def a_store_with_shared_chunks() -> DictStorage:
    """``child.state`` reuses all objects of its base ``base.state``, as format v1 allows."""
    storage = DictStorage()
    with store_with(storage, folder=Folder(OLD)) as store:
        store.save_state(name="base.state")
    catalog = Catalog(storage)
    record = catalog.record(StateKey(1, "base.state"))
    manifest = StateReader(storage, catalog, record).manifest
    child = manifest.model_copy(update={"state": "child.state", "sequence": 2, "base": "base.state"})
    packed = child.pack()
    stored = compress_chunk(packed)
    storage.put(manifest_key("child.state"), stored)
    reference = ManifestRef(length=len(stored), size=len(packed), digest=digest(stored).hex())
    marker = record.model_copy(
        update={
            "state": "child.state",
            "sequence": 2,
            "base": "base.state",
            "reuses": ["base.state"],
            "new_size": 0,
            "manifest": reference,
        }
    )
    storage.put(commit_key(2, "child.state"), marker.to_json())
    return storage


def test_objects_that_a_living_state_shares_outlive_their_own_state() -> None:
    storage = a_store_with_shared_chunks()
    folder = Folder()
    with store_with(storage, folder=folder) as store:
        store.remove(["base.state"])
        assert [info.name for info in store.states()] == ["child.state"]
        store.load_state("child.state")
        assert folder.files == OLD
        store.remove([])
        store.verify("child.state")
        store.remove(["child.state"])
        store.remove([])
    assert {key.partition("/")[0] for key in storage.objects} == {"_vault"}
    assert not any(key.startswith(("_vault/commits", "_vault/sessions")) for key in storage.objects)


def test_what_a_live_session_may_reuse_is_kept_although_its_base_is_dead() -> None:
    storage = a_store_with_shared_chunks()
    session = SessionRecord(state="third.state", sequence=3, writer="w", base="child.state", started_at=NOW)
    storage.put(session_key("third.state"), session.to_json())
    shared = {key for key in storage.objects if key.startswith("base.state/folder/")}
    assert shared
    with StateStore(storage) as store:
        store.remove(["base.state", "child.state"])
        assert store.states() == []
        assert shared <= set(storage.objects)
        storage.delete([session_key("third.state")])
        store.remove([])
    assert not shared & set(storage.objects)


def test_a_session_whose_state_is_committed_is_cleaned_up() -> None:
    storage = DictStorage()
    with store_with(storage, folder=Folder(OLD)) as store:
        store.save_state(name="a.state")
        session = SessionRecord(state="a.state", sequence=1, writer="w", base=None, started_at=NOW - timedelta(days=9))
        storage.put(session_key("a.state"), session.to_json())
        store.remove([])
        assert session_key("a.state") not in storage.objects
        assert tombstone_key(1, "a.state") not in storage.objects
        assert abort_key("a.state") not in storage.objects, "it could not be pinned any more"
        store.verify("a.state")


def at_each_call_of_a_prune(
    prepare: Callable[[], DictStorage],
    meanwhile: Callable[[DictStorage], None],
    afterwards: Callable[[DictStorage], None] = lambda storage: None,
    *,
    victims: tuple[str, ...] = ("base.state",),
    stale_after: timedelta = STALE_AFTER,
) -> None:
    """Prune, and do something in the middle; ``child.state`` must stay whole, if it was acknowledged."""
    number = 0
    while True:
        number += 1
        storage = prepare()
        made = 0

        def before(call: str, storage: DictStorage = storage, number: int = number) -> None:
            nonlocal made
            made += 1
            if made == number:
                meanwhile(storage)

        watched = WatchedStorage(storage, before)
        prune(watched, Catalog(watched), victims, by="p", reason="test", stale_after=stale_after)
        if made < number:
            break
        afterwards(storage)
        with StateStore(storage) as store:
            if NOT_ACKNOWLEDGED not in storage.objects:
                assert "child.state" in store.names()
            if "child.state" in store.names():
                store.verify("child.state")
    assert number > 5


def end_the_save(storage: DictStorage, marker: bytes) -> None:
    """Steps 5 to 7 of the save of ``child.state``, at once."""
    storage.put(commit_key(2, "child.state"), marker)
    if storage.exists(abort_key("child.state")) or storage.exists(tombstone_key(2, "child.state")):
        storage.put(NOT_ACKNOWLEDGED, b"")
    else:
        storage.delete([session_key("child.state")])


def test_a_save_that_ends_while_it_is_taken_for_dead_is_acknowledged_or_given_up_never_both() -> None:
    markers: list[bytes] = []

    def prepare() -> DictStorage:
        storage = a_store_with_shared_chunks()
        markers.append(storage.objects.pop(commit_key(2, "child.state")))
        session = SessionRecord(state="child.state", sequence=2, writer="w", base="base.state", started_at=NOW)
        storage.put(session_key("child.state"), session.to_json())
        return storage

    at_each_call_of_a_prune(
        prepare, lambda storage: end_the_save(storage, markers[-1]), victims=(), stale_after=timedelta(0)
    )


def test_a_base_that_is_removed_just_after_the_writer_has_looked() -> None:
    """This prune has no victims: another one puts the tombstone, after the session and the look at the base."""
    markers: list[bytes] = []

    def prepare() -> DictStorage:
        storage = a_store_with_shared_chunks()
        markers.append(storage.objects.pop(commit_key(2, "child.state")))
        return storage

    def begin(storage: DictStorage) -> None:
        session = SessionRecord(state="child.state", sequence=2, writer="w", base="base.state", started_at=NOW)
        storage.put(session_key("child.state"), session.to_json())
        remove_states(storage, [StateKey(1, "base.state")], by="q", reason="test")

    at_each_call_of_a_prune(prepare, begin, lambda storage: end_the_save(storage, markers[-1]), victims=())


def test_a_marker_that_was_lost_without_a_tombstone_stops_a_prune() -> None:
    """It may come back, and might have protected something."""
    storage = a_store_with_shared_chunks()

    def lose(call: str) -> None:
        if call == "get _vault/commits/000000000002.child.state":
            storage.objects.pop(commit_key(2, "child.state"), None)

    before = {key for key in storage.objects if key.startswith("base.state/")}
    watched = WatchedStorage(storage, lose)
    with pytest.raises(StatePrunedError, match="without a tombstone"):
        prune(watched, Catalog(watched), ["base.state"], by="p", reason="test")
    assert before <= storage.objects.keys()


def test_another_prune_beside_a_save_that_ends_well() -> None:
    """This one saw the session and its base, but neither marker: the other one takes the base's away."""
    markers: list[bytes] = []

    def prepare() -> DictStorage:
        storage = a_store_with_shared_chunks()
        markers.append(storage.objects.pop(commit_key(2, "child.state")))
        session = SessionRecord(state="child.state", sequence=2, writer="w", base="base.state", started_at=NOW)
        storage.put(session_key("child.state"), session.to_json())
        return storage

    def end_well(storage: DictStorage) -> None:
        storage.put(commit_key(2, "child.state"), markers[-1])
        storage.delete([session_key("child.state")])
        prune(storage, Catalog(storage), [], by="q", reason="test")

    at_each_call_of_a_prune(prepare, end_well)


@pytest.mark.parametrize("victims", [("base.state",), ()], ids=["looks ahead", "goes on with what another has begun"])
def test_another_prune_removes_the_state_through_which_a_new_one_refers(victims: tuple[str, ...]) -> None:
    """This one saw the older state, which shares, and not the newer, which shares as well."""

    def prepare() -> DictStorage:
        storage = DictStorage()
        with store_with(storage, folder=Folder(OLD)) as store:
            store.save_state(name="base.state")
            store.save_state(name="middle.state")
        if not victims:
            remove_states(storage, [StateKey(1, "base.state")], by="q", reason="test")
        return storage

    def replace(storage: DictStorage) -> None:
        with store_with(storage, folder=Folder(OLD)) as store:
            store.save_state(name="child.state")
        prune(storage, Catalog(storage), ["middle.state"], by="q", reason="test")

    at_each_call_of_a_prune(prepare, replace, victims=victims)
