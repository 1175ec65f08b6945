"""The numbers of states: what lies among the records, whoever put it, ends no saves and uses up no numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from statevault.errors import StorageAccessError, StorageError, StorageUnreachableError
from statevault.format.keys import MAX_SEQUENCE, MAX_UNREAD_SEQUENCE, StateKey, commit_key, tombstone_key
from statevault.format.records import TombstoneRecord
from statevault.state_persistence import StateStore
from statevault.state_persistence.records.catalog import Catalog
from tests.state_persistence.components import Folder, store_with
from tests.state_persistence.storages import DictStorage, TimedStorage, WatchedStorage

LIMIT, LAST = MAX_UNREAD_SEQUENCE, MAX_SEQUENCE
NOT_A_MARKER = {
    "nothing": b"",
    "two bytes": b"{}",
    "no JSON": b"\xff\xfe\x00",
    "another state's": b'{"version": 1, "state": "b"}',
    "a newer version's": b'{"version": 2}',
    "too deep": b"[" * 100_000,
    "too large": b" " * (17 * 1024**2),
}


def filled(storage: DictStorage) -> DictStorage:
    """One state, ``a``."""
    save(storage, "a")
    return storage


def save(storage: DictStorage | WatchedStorage, *names: str, incremental: bool = True) -> list[StateKey]:
    """Save states in one process, and say what numbers they have."""
    with StateStore(storage, incremental=incremental) as store:
        store.register("folder", Folder({"a": b"a" * 100}))
        for name in names:
            store.save_state(name=name)
    return [key for key in Catalog(storage).listing().commits if key.state in names]


def forged(storage: DictStorage, sequence: int, name: str) -> bytes:
    """The marker of ``a``, as that of another state."""
    return json.dumps(json.loads(storage.objects[commit_key(1, "a")]) | {"sequence": sequence, "state": name}).encode()


def buried(sequence: int, name: str, at: datetime) -> bytes:
    return TombstoneRecord(state=name, sequence=sequence, by="somebody", at=at).to_json()


@pytest.mark.parametrize("content", NOT_A_MARKER.values(), ids=NOT_A_MARKER)
@pytest.mark.parametrize("key", [commit_key, tombstone_key])
@pytest.mark.parametrize("sequence", [LIMIT + 1, LAST])
def test_what_is_no_record_uses_up_no_numbers(key: Callable[[int, str], str], sequence: int, content: bytes) -> None:
    storage = filled(DictStorage())
    storage.objects[key(sequence, "zzz")] = content
    for _ in range(2):
        save(storage, *(f"{len(storage.objects)}-{number}" for number in range(2)))
    assert [each.sequence for each in Catalog(storage).listing().commits if each.state != "zzz"] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("key", [commit_key, tombstone_key])
def test_what_is_no_record_below_the_limit_leaves_room_for_saves(key: Callable[[int, str], str]) -> None:
    storage = filled(DictStorage())
    storage.objects[key(LIMIT, "zzz")] = b"{}"
    for number in range(1, 4):
        assert save(storage, f"b{number}") == [(LIMIT + number, f"b{number}")]
    assert Catalog(storage).listing().visible[-1] == (LIMIT + 3, "b3")


def test_a_tombstone_of_no_save_uses_up_no_numbers_and_goes_with_a_collection() -> None:
    storage = TimedStorage()
    long_ago = storage.now - timedelta(days=8)
    filled(storage)
    storage.now = long_ago
    storage.put(tombstone_key(LAST, "zzz"), buried(LAST, "zzz", long_ago))
    storage.put(tombstone_key(LAST - 1, "yyy"), b"{}")
    storage.now = datetime.now(UTC)
    assert save(storage, "b") == [(2, "b")]
    with StateStore(storage) as store:
        assert store.gc().records == 2
        assert store.names() == ["a", "b"]


def test_behind_a_state_with_the_last_number_names_give_the_order() -> None:
    storage = filled(DictStorage())
    storage.objects[commit_key(LAST, "9.state")] = forged(storage, LAST, "9.state")
    with store_with(storage, folder=Folder({"a": b"a"})) as store:
        store.save_state(name="epoch-1")
        store.save_state(name="epoch-2")
        assert store.names() == ["a", "9.state", "epoch-1", "epoch-2"]
        assert store.load_state().name == "epoch-2"


def test_when_a_state_with_an_absurd_number_is_removed_numbers_are_as_before() -> None:
    storage = filled(DictStorage())
    storage.objects[commit_key(LAST, "zzz")] = forged(storage, LAST, "zzz")
    with StateStore(storage) as store:
        assert store.remove(["zzz"]).removed == ("zzz",)
    assert save(storage, "b") == [(2, "b")]
    with StateStore(storage) as store:
        assert store.load_state(components=[]).name == "b"


def test_only_what_can_matter_is_read_and_only_once() -> None:
    storage = filled(DictStorage())
    storage.objects[tombstone_key(LAST, "zzz")] = b"{}"
    storage.objects[commit_key(LAST, "yyy")] = b"{}"
    storage.objects[commit_key(LIMIT + 2, "x")] = forged(storage, LIMIT + 2, "x")
    storage.objects[commit_key(LIMIT + 1, "w")] = forged(storage, LIMIT + 1, "w")
    watched = WatchedStorage(storage)
    assert save(watched, "b", "c", incremental=False) == [(LIMIT + 3, "b"), (LIMIT + 4, "c")]
    looked_at = [call for call in watched.calls if call.startswith("get _vault/commits/")]
    assert looked_at[:2] == [f"get {commit_key(LAST, 'yyy')}", f"get {commit_key(LIMIT + 2, 'x')}"]
    assert looked_at[2:] == [f"get {commit_key(LIMIT + 3, 'b')}"]


def test_a_store_without_absurd_numbers_is_read_no_more_than_before() -> None:
    watched = WatchedStorage(filled(DictStorage()))
    save(watched, "b", incremental=False)
    assert not [call for call in watched.calls if call.startswith("get _vault/commits/")]


@pytest.mark.parametrize(
    ("error", "goes_on"),
    [
        (StorageAccessError("not for you"), True),
        (StorageError("a folder is no file"), True),
        (StorageUnreachableError("the network is away", transient=True), False),
    ],
)
def test_a_marker_that_is_refused_does_not_count_and_one_that_is_out_of_reach_is_waited_for(
    error: StorageError, goes_on: bool
) -> None:
    storage = filled(DictStorage())
    storage.objects[commit_key(LAST, "zzz")] = forged(storage, LAST, "zzz")

    def fail(call: str) -> None:
        if call == f"get {commit_key(LAST, 'zzz')}":
            raise error

    watched = WatchedStorage(storage, fail)
    if goes_on:
        assert save(watched, "b", incremental=False) == [(2, "b")]
    else:
        with pytest.raises(StorageUnreachableError):
            save(watched, "b", incremental=False)
        assert [key.state for key in Catalog(storage).listing().visible] == ["a", "zzz"]


@pytest.mark.parametrize("key", ["_vault/commits/000000000000.zzz", "_vault/tombstones/000000000000.zzz"])
def test_a_key_without_a_number_is_no_record(key: str) -> None:
    storage = filled(DictStorage())
    storage.objects[key] = b"{}"
    assert save(storage, "zzz") == [(2, "zzz")]
    with StateStore(storage) as store:
        assert store.names() == ["a", "zzz"]
        assert store.remove(["a"]).removed == ("a",)


@pytest.mark.parametrize("content", NOT_A_MARKER.values(), ids=NOT_A_MARKER)
def test_what_is_newest_and_can_not_be_read_is_no_base_and_ends_no_saves(content: bytes) -> None:
    storage = filled(DictStorage())
    storage.objects[commit_key(9, "zzz")] = content
    assert save(storage, "b", "c") == [(10, "b"), (11, "c")]
