"""What a prune costs, and what a collection finds that a prune leaves."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest

from statevault.errors import StateVaultError
from statevault.format.keys import (
    ABORTS,
    INTENTS,
    PINS,
    TOMBSTONES,
    VAULT,
    StateKey,
    abort_key,
    commit_key,
    intent_key,
    session_key,
    tombstone_key,
)
from statevault.format.records import AbortRecord, IntentRecord, SessionRecord, TombstoneRecord
from statevault.state_persistence import StateStore
from statevault.state_persistence.pruning.collection import CollectionResult, collect
from statevault.state_persistence.records.catalog import Catalog
from statevault.storage import PROBE_PREFIX
from tests.state_persistence.components import Files, Folder, store_with
from tests.state_persistence.garbage import check_no_garbage
from tests.state_persistence.storages import (
    FAILURES,
    DictStorage,
    FailingStorage,
    Failure,
    ProcessDiedError,
    TimedStorage,
    WatchedStorage,
)

NOW = datetime.now(UTC)
LONG_AGO = NOW - timedelta(days=8)


def save_states(storage: DictStorage, count: int, *, shared: bool = True) -> dict[str, Files]:
    """Save states of one frozen and one changing file each."""
    contents = {}
    folder = Folder({})
    with StateStore(storage, incremental=shared) as store:
        store.register("folder", folder)
        for number in range(count):
            name = f"{number:04}.state"
            folder.files = {"frozen.bin": b"f" * 70_000, "own.bin": name.encode() * 100}
            contents[name] = dict(folder.files)
            store.save_state(name=name)
    return contents


def kinds_of(calls: list[str]) -> Counter[str]:
    return Counter(call.partition(" ")[0] for call in calls)


@pytest.mark.parametrize("count", [20, 120])
def test_the_requests_of_a_prune_grow_with_what_it_removes(count: int) -> None:
    """In a process that knows the markers, as one that saves and prunes does."""
    storage = DictStorage()
    save_states(storage, count, shared=False)
    watched = WatchedStorage(storage)
    with StateStore(watched) as store:
        store.states()
        watched.calls.clear()
        store.remove(["0003.state"])
        one = kinds_of(watched.calls)
        watched.calls.clear()
        store.remove([f"{number:04}.state" for number in range(4, 14)])
        ten = kinds_of(watched.calls)
    # The intent and a tombstone; the records (3), the pins, the ids (2), the sessions (2) and the folder; the batches
    # of data, of records and of the intent. No marker or manifest is read, as no state refers to what was removed.
    assert one == {"put": 2, "list": 9, "delete": 3}
    assert ten == {"put": 11, "list": 18, "delete": 3}


def test_a_prune_reads_the_manifests_of_those_who_share_and_lists_what_they_share() -> None:
    storage = DictStorage()
    contents = save_states(storage, 20)
    watched = WatchedStorage(storage)
    with StateStore(watched) as store:
        store.states()
        watched.calls.clear()
        store.remove(["0000.state"])  # all others refer to its frozen file
        assert sum(call.startswith("get") and "manifest" in call for call in watched.calls) == 19
        assert [key for key in storage.objects if key.startswith("0000.state/")] == ["0000.state/folder/frozen.bin.zst"]
        watched.calls.clear()
        for name in list(contents)[1:19]:
            store.remove([name])
        assert not any("manifest" in call for call in watched.calls if call.startswith("get")), "they are known"
        assert "0000.state/folder/frozen.bin.zst" in storage.objects
        store.verify("0019.state")
        store.remove(["0019.state"])
    assert [key for key in storage.objects if not key.startswith(VAULT)] == []


def test_a_prune_without_victims_costs_little() -> None:
    storage = DictStorage()
    save_states(storage, 5)
    watched = WatchedStorage(storage)
    with StateStore(watched) as store:
        store.remove([])
    assert kinds_of(watched.calls) == {"list": 5, "get": 1}


def test_what_landed_after_its_state_was_given_up_is_found_by_a_collection_only() -> None:
    storage = DictStorage()
    save_states(storage, 3)
    with StateStore(storage) as store:
        store.remove(["0001.state"])
        storage.put("0001.state/folder/late.bin", b"late")
        storage.put("foreign/file.txt", b"somebody's")
        storage.put("0001.state/.notes", b"somebody's")
        store.remove([])
        assert "0001.state/folder/late.bin" in storage.objects
        result = store.gc()
    assert (result.objects, result.freed) == (1, 4)
    assert "0001.state/folder/late.bin" not in storage.objects
    assert {"foreign/file.txt", "0001.state/.notes"} <= storage.objects.keys()


def test_a_rehearsal_takes_every_step_and_changes_nothing() -> None:
    storage = TimedStorage(LONG_AGO)
    save_states(storage, 4)
    session = SessionRecord(state="x.state", sequence=5, writer="w", base="0003.state", started_at=LONG_AGO)
    with StateStore(storage) as store:
        store.remove(["0001.state", "0002.state"])
        storage.put(session_key("x.state"), session.to_json())
        storage.put("x.state/folder/half.bin", b"half")
        storage.put("0001.state/folder/late.bin", b"late")
        watched = WatchedStorage(storage)
        before = dict(storage.objects)
        with StateStore(watched) as watcher:
            told = watcher.gc(dry_run=True)
        assert not [call for call in watched.calls if not call.startswith(("get", "head", "list"))]
        assert storage.objects == before
        assert store.gc() == told
    assert (told.given_up, told.objects) == (("x.state",), 2)


def test_a_collection_says_which_saves_it_gave_up() -> None:
    storage = DictStorage()
    save_states(storage, 1)
    session = SessionRecord(state="x.state", sequence=2, writer="w", base=None, started_at=LONG_AGO)
    storage.put(session_key("x.state"), session.to_json())
    storage.put("x.state/folder/half.bin", b"half")
    with StateStore(storage) as store:
        result = store.gc()
        assert result == CollectionResult(given_up=("x.state",), objects=1, freed=4, records=0, uploads=0)
        assert store.names() == ["0000.state"]


def old_records(storage: TimedStorage) -> None:
    """Two removed states and an intent, all of long ago; the last state stays."""
    for sequence, state in ((1, "a.state"), (2, "b.state")):
        tombstone = TombstoneRecord(state=state, sequence=sequence, by="p", at=LONG_AGO)
        storage.put(tombstone_key(sequence, state), tombstone.to_json())
        storage.put(abort_key(state), AbortRecord(state=state, by="p", at=LONG_AGO).to_json())
    intent = IntentRecord(prune="00aa" * 4, states=["a.state"], by="p", at=LONG_AGO)
    storage.put(intent_key(intent.prune), intent.to_json())
    storage.times = dict.fromkeys(storage.objects, LONG_AGO)


def records_left(storage: TimedStorage) -> list[str]:
    return [key for key in sorted(storage.objects) if key.startswith((ABORTS, INTENTS, TOMBSTONES))]


def test_records_go_when_they_are_old_and_nothing_else_is_left() -> None:
    storage = TimedStorage()
    old_records(storage)
    save_states(storage, 1)
    with StateStore(storage) as store:
        assert store.gc().records == 3  # both tombstones, and the intent
        assert store.gc().records == 2  # the aborts, which no tombstone needs any more
        assert records_left(storage) == []
        store.verify("0000.state")


def test_the_last_tombstone_stays_so_that_sequences_never_fall() -> None:
    storage = TimedStorage()
    old_records(storage)
    storage.put("_vault/format.json", b'{"format": "statevault", "version": 1}')
    with StateStore(storage) as store:
        store.gc()
        store.gc()
    assert records_left(storage) == [abort_key("b.state"), tombstone_key(2, "b.state")]
    save_states(storage, 1)
    assert [key.sequence for key in Catalog(storage).listing().visible] == [3]


@pytest.mark.parametrize(
    "reason",
    ["young here", "young there", "no clock", "data", "session", "pin", "newer", "damaged and young"],
)
def test_records_that_may_still_be_needed_stay(reason: str) -> None:
    storage = TimedStorage()
    old_records(storage)
    save_states(storage, 1)
    key = tombstone_key(1, "a.state")
    match reason:
        case "young here":
            storage.times[key] = NOW
        case "young there":
            storage.objects[key] = TombstoneRecord(state="a.state", sequence=1, by="p", at=NOW).to_json()
        case "no clock":
            at = datetime(1970, 1, 1, 0, 5, tzinfo=UTC)
            storage.objects[key] = TombstoneRecord(state="a.state", sequence=1, by="p", at=at).to_json()
        case "data":
            storage.put("a.state/folder/late.bin", b"late")
        case "session":
            session = SessionRecord(state="a.state", sequence=1, writer="w", base=None, started_at=NOW)
            storage.put(session_key("a.state"), session.to_json())
        case "pin":
            storage.put(f"{PINS}a.state/late.00000000", b"")
        case "newer":
            storage.objects[key] = b'{"version": 2}'
        case _:
            storage.put(key, b"{")
    with StateStore(storage) as store:
        store.gc()
    assert key in storage.objects


@pytest.mark.parametrize("content", [b"{", b" " * (17 << 20)], ids=["damaged", "too large"])
def test_a_record_that_cannot_be_read_is_as_old_as_its_object(content: bytes) -> None:
    storage = TimedStorage()
    old_records(storage)
    save_states(storage, 1)
    storage.objects[tombstone_key(1, "a.state")] = storage.objects[intent_key("00aa" * 4)] = content
    with StateStore(storage) as store:
        assert store.gc(dry_run=True).records == 3
        assert store.gc().records == 3


def test_a_rehearsal_gives_no_save_up_and_does_not_say_so(caplog: pytest.LogCaptureFixture) -> None:
    storage = DictStorage()
    save_states(storage, 1)
    session = SessionRecord(state="x.state", sequence=2, writer="w", base=None, started_at=LONG_AGO)
    storage.put(session_key("x.state"), session.to_json())
    with StateStore(storage) as store:
        assert store.gc(dry_run=True).given_up == ("x.state",)
        assert "given up" not in caplog.text
        store.gc()
        assert caplog.text.count("x.state by w to dict:// did not end; it is given up") == 1


def test_a_rehearsal_goes_by_the_clock_of_the_backend_that_is_behind() -> None:
    there = NOW - timedelta(days=30)
    storage = TimedStorage(there)
    save_states(storage, 1)
    at = there - timedelta(days=6)
    storage.put(tombstone_key(1, "a.state"), TombstoneRecord(state="a.state", sequence=1, by="p", at=at).to_json())
    session = SessionRecord(state="x.state", sequence=2, writer="w", base=None, started_at=at)
    storage.put(session_key("x.state"), session.to_json())
    storage.times[tombstone_key(1, "a.state")] = storage.times[session_key("x.state")] = at
    with StateStore(storage) as store:
        told = store.gc(dry_run=True)
        assert (told.given_up, told.records) == (("x.state",), 0)
        assert store.gc() == told


def test_what_a_killed_probe_has_left_goes_when_it_is_old() -> None:
    storage = TimedStorage()
    save_states(storage, 1)
    for name in ("old", "young"):
        storage.put(f"{PROBE_PREFIX}{name}/large", b"noise")
    storage.times[f"{PROBE_PREFIX}old/large"] = NOW - timedelta(days=2)
    with StateStore(storage) as store:
        assert store.gc().records == 1
    assert [key for key in storage.objects if key.startswith(PROBE_PREFIX)] == [f"{PROBE_PREFIX}young/large"]


def test_a_writer_whose_clock_is_years_ahead_is_taken_for_dead_by_the_backends() -> None:
    storage = TimedStorage()
    save_states(storage, 1)
    ahead = NOW + timedelta(days=26_000)
    session = SessionRecord(state="x.state", sequence=2, writer="w", base=None, started_at=ahead)
    storage.put(session_key("x.state"), session.to_json())
    with StateStore(storage) as store:
        assert store.gc().given_up == ()
        storage.times[session_key("x.state")] = NOW - timedelta(days=2)
        assert store.gc().given_up == ("x.state",)


@pytest.mark.parametrize("failure", FAILURES)
def test_the_process_dies_at_every_call_of_a_collection(failure: Failure) -> None:
    number = 0
    while True:
        number += 1
        storage = TimedStorage()
        old_records(storage)
        contents = save_states(storage, 4)
        with StateStore(storage) as store:
            store.remove(["0000.state", "0001.state"])
        session = SessionRecord(state="x.state", sequence=9, writer="w", base="0002.state", started_at=LONG_AGO)
        storage.put(session_key("x.state"), session.to_json())
        storage.put("x.state/folder/half.bin", b"half")
        failing = FailingStorage(storage, fail_at=number, failure=failure, dies=True)
        with suppress(ProcessDiedError):
            collect(failing, Catalog(failing), by="dying", stale_after=timedelta(0))
        if len(failing.calls) < number:
            break
        for landed in (False, True):
            if landed:
                failing.land()
            check_contents(storage, contents, ["0002.state", "0003.state"])
        check_no_garbage(storage)
        check_contents(storage, contents, ["0002.state", "0003.state"])
    assert number > 12


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("dies", [False, True], ids=["error", "death"])
def test_a_prune_of_states_that_share_fails_at_every_call(failure: Failure, dies: bool) -> None:
    saved = DictStorage()
    contents = save_states(saved, 5)
    number = 0
    while True:
        number += 1
        storage = saved.copy()
        failing = FailingStorage(storage, fail_at=number, failure=failure, dies=dies)
        removed = False
        with suppress(ProcessDiedError, StateVaultError):
            StateStore(failing).remove(["0000.state", "0002.state"])
            removed = True
        if len(failing.calls) < number:
            break
        left = check_contents(storage, contents, ["0001.state", "0003.state", "0004.state"], may_have=True)
        assert len(left) == 3 or not removed, failing.calls[number - 1]
        failing.land()
        with StateStore(storage) as store:
            store.remove(["0000.state", "0002.state"])
        check_contents(storage, contents, ["0001.state", "0003.state", "0004.state"])
        check_no_garbage(storage)
        check_contents(storage, contents, ["0001.state", "0003.state", "0004.state"])
    assert number > 15


def check_contents(
    storage: DictStorage, contents: dict[str, Files], wanted: list[str], *, may_have: bool = False
) -> list[str]:
    """All visible states are whole; they are those that are wanted, or these and others."""
    folder = Folder({})
    with store_with(storage, folder=folder) as store:
        names = store.names()
        for name in names:
            store.load_state(name)
            assert folder.files == contents[name]
    assert set(wanted) <= set(names) if may_have else names == wanted
    return names


def test_ten_thousand_states_are_listed_and_pruned_without_looking_at_each_again() -> None:
    storage = DictStorage()
    save_states(storage, 1, shared=False)
    first = Catalog(storage).record(StateKey(1, "0000.state"))
    data = {key.partition("/")[2]: content for key, content in storage.objects.items() if key.startswith("0000.state/")}
    for number in range(1, 10_000):
        name = f"{number:04}.state"
        record = first.model_copy(update={"state": name, "sequence": number + 1})
        storage.objects[commit_key(number + 1, name)] = record.to_json()
        storage.objects |= {f"{name}/{path}": content for path, content in data.items()}
    watched = WatchedStorage(storage)
    with StateStore(watched) as store:
        assert store.latest() is not None
        assert kinds_of(watched.calls) == {"list": 1, "get": 2}, "the format and the newest marker"
        assert len(store.states()) == 10_000
        watched.calls.clear()
        assert len(store.states()) == 10_000
        assert kinds_of(watched.calls) == {"list": 1}
        watched.calls.clear()
        result = store.remove([f"{number:04}.state" for number in range(100)])
        assert result.objects == 100 * len(data)
    # An intent; for each state a tombstone, and a look into its folder.
    assert kinds_of(watched.calls) == {"put": 101, "list": 108, "delete": 3}
