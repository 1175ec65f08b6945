"""Records that can't be read, beside removals and collections: all or nothing, and the error says what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from statevault.errors import CorruptStateError, FormatError, StatePrunedError, StateVaultError
from statevault.format.keys import StateKey, commit_key, manifest_key, session_key, tombstone_key
from statevault.format.records import SessionRecord
from statevault.state_persistence import KeepAny, KeepLatest, KeepPeriodic, KeepWithin, LatestStatesKeeper, StateStore
from statevault.state_persistence.keepers import Retention
from statevault.state_persistence.pruning.removal import remove_states
from tests.state_persistence.components import Folder, store_with
from tests.state_persistence.storages import DictStorage, WatchedStorage

STATES = ("a.state", "b.state", "c.state")
Damage = Callable[[DictStorage], None]


def a_store() -> DictStorage:
    """Three states of a file that they share and one of their own."""
    storage = DictStorage()
    folder = Folder()
    with store_with(storage, folder=folder) as store:
        for name in STATES:
            folder.files = {"frozen.bin": b"f" * 70_000, "own.bin": name.encode() * 100}
            store.save_state(name=name)
    return storage


def damage(key: str, content: bytes = b"{") -> Damage:
    def act(storage: DictStorage) -> None:
        storage.objects[key] = content

    return act


def cut(key: str, length: int) -> Damage:
    def act(storage: DictStorage) -> None:
        storage.objects[key] = storage.objects[key][:length]

    return act


IN_THE_WAY = {
    "another state's marker": (cut(commit_key(2, "b.state"), 20), r"commits/0+2\.b\.state.* rm STORE b\.state`"),
    "another state's manifest": (cut(manifest_key("b.state"), 20), r"b\.state/manifest.* rm STORE b\.state`"),
    "what looks like a marker": (
        damage("_vault/commits/000000000009.zzz.state.tmp"),
        r"0009\.zzz\.state\.tmp.* rm STORE zzz\.state\.tmp`",
    ),
    "a session": (damage(session_key("d.state")), r"sessions/d\.state.* delete _vault/sessions/d\.state by hand"),
    "a newer session": (damage(session_key("d.state"), b'{"version": 2}'), r"sessions/d\.state.*pip install"),
}


def writes(storage: WatchedStorage) -> list[str]:
    return [call for call in storage.calls if call.startswith(("put", "delete"))]


@pytest.mark.parametrize(("spoil", "told"), IN_THE_WAY.values(), ids=IN_THE_WAY)
@pytest.mark.parametrize("knows", [False, True])
def test_a_removal_that_cannot_end_removes_nothing(spoil: Damage, told: str, knows: bool) -> None:
    storage = a_store()
    watched = WatchedStorage(storage)
    with StateStore(watched) as store:
        if knows:
            store.names()
        spoil(storage)
        with pytest.raises((FormatError, CorruptStateError), match=f"(?s){told}") as caught:
            store.remove(["a.state"])
        assert "nothing was removed" in str(caught.value)
        assert writes(watched) == []
        assert set(STATES) <= set(store.names())


@pytest.mark.parametrize(("spoil", "told"), IN_THE_WAY.values(), ids=IN_THE_WAY)
@pytest.mark.parametrize("dry_run", [False, True])
def test_a_collection_that_cannot_be_made_collects_nothing_and_says_why(
    spoil: Damage, told: str, dry_run: bool
) -> None:
    storage = a_store()
    with StateStore(storage) as store:
        store.remove(["a.state"])
    spoil(storage)
    watched = WatchedStorage(storage)
    with StateStore(watched) as store:
        with pytest.raises((FormatError, CorruptStateError), match=f"(?s){told}") as caught:
            store.gc(dry_run=dry_run)
        assert "nothing was collected" in str(caught.value)
    assert writes(watched) == []


def test_damaged_states_are_removed_by_name_and_all_of_them_are_named() -> None:
    storage = a_store()
    cut(commit_key(1, "a.state"), 20)(storage)
    cut(commit_key(2, "b.state"), 20)(storage)
    with StateStore(storage) as store:
        with pytest.raises(CorruptStateError, match=r"rm STORE a\.state b\.state`"):
            store.remove(["c.state"])
        with pytest.raises(CorruptStateError, match=r"rm STORE b\.state`"):
            store.remove(["a.state"])
        assert store.remove(["a.state", "b.state"]).removed == ("a.state", "b.state")
        assert store.remove(["c.state"]).removed == ("c.state",)


def test_removing_a_damaged_state_says_nothing_of_retention(caplog: pytest.LogCaptureFixture) -> None:
    storage = a_store()
    cut(commit_key(1, "a.state"), 20)(storage)
    with StateStore(storage) as store:
        store.freed_by(["a.state"])
        store.remove(["a.state"])
    assert len(caplog.messages) == 2
    assert not [message for message in caplog.messages if "retention" in message]


@pytest.mark.parametrize("at", ["9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00"])
def test_a_removal_at_the_edge_of_the_calendar_is_told(at: str) -> None:
    storage = a_store()
    tombstone = {"version": 1, "state": "a.state", "sequence": 1, "by": "somebody", "at": at}
    storage.objects[tombstone_key(1, "a.state")] = json.dumps(tombstone).encode()
    with StateStore(storage) as store, pytest.raises(StatePrunedError, match=r"was removed from dict:// by somebody, "):
        store.load_state("a.state")


def test_what_is_damaged_while_states_are_removed_is_an_error_that_names_them() -> None:
    storage = a_store()

    def spoil(call: str) -> None:
        if call.startswith("put _vault/tombstones/"):
            damage(session_key("d.state"))(storage)

    with StateStore(WatchedStorage(storage, spoil)) as store:
        with pytest.raises(FormatError, match="no data was deleted") as caught:
            store.remove(["a.state", "b.state"])
        (note,) = caught.value.__notes__
        assert note.startswith("Removed already: a.state, b.state.")
        assert "statevault gc" in note
        assert store.names() == ["c.state"]
        del storage.objects[session_key("d.state")]
        assert store.gc().objects > 0


def test_a_tombstone_that_has_no_answer_is_told_of() -> None:
    storage = a_store()

    def fail(call: str) -> None:
        if call.startswith("put _vault/tombstones/"):
            raise StateVaultError("no answer")

    with StateStore(WatchedStorage(storage, fail)) as store, pytest.raises(StateVaultError, match="no ans") as caught:
        store.remove(["a.state"])
    assert caught.value.__notes__ == ["Some of these may be removed already: a.state. Remove them again to go on."]


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"version": 1, "state": "b.state", "sequence": 1}', b" " * (17 << 20)]
)
def test_a_damaged_tombstone_removes_its_state_and_stops_nothing(content: bytes) -> None:
    storage = a_store()
    remove_states(storage, [StateKey(1, "a.state")], by="p", reason="a prune that died")
    storage.objects[tombstone_key(1, "a.state")] = content
    with StateStore(storage) as store:
        assert store.names() == ["b.state", "c.state"]
        assert store.remove(["b.state"]).removed == ("b.state",)
        assert commit_key(1, "a.state") not in storage.objects
        store.verify("c.state")
        with pytest.raises(StatePrunedError, match=r"'a\.state' was removed from dict://$"):
            store.info("a.state")
        store.gc()
        store.remove(["c.state"])
        store.gc()
    assert not [key for key in storage.objects if not key.startswith("_vault/")]


def test_a_damaged_tombstone_of_newer_statevaults_stops_a_collection() -> None:
    storage = a_store()
    remove_states(storage, [StateKey(1, "a.state")], by="p", reason="a prune that died")
    storage.objects[tombstone_key(1, "a.state")] = b'{"version": 2}'
    with StateStore(storage) as store, pytest.raises(FormatError, match=r"tombstones/.*; nothing was collected"):
        store.gc()


@pytest.mark.parametrize("state", ["b.state", "a.state"], ids=["committed", "removed"])
def test_a_damaged_session_of_a_save_that_has_ended_protects_nothing_and_goes(state: str) -> None:
    storage = a_store()
    remove_states(storage, [StateKey(1, "a.state")], by="p", reason="a prune that died")
    damage(session_key(state))(storage)
    with StateStore(storage) as store:
        assert store.remove(["c.state"]).removed == ("c.state",)
    assert session_key(state) not in storage.objects


@pytest.mark.parametrize("name", [".DS_Store", "a.state/x", "~a.state"])
def test_what_cannot_be_a_session_by_its_name_is_nobodys(name: str) -> None:
    storage = a_store()
    damage(session_key(name))(storage)
    with StateStore(storage) as store:
        assert store.remove(["a.state"]).removed == ("a.state",)
        store.gc()
    assert session_key(name) in storage.objects


def test_a_save_on_a_removed_state_that_is_damaged_is_waited_for() -> None:
    storage = a_store()
    session = SessionRecord(state="d.state", sequence=4, writer="w", base="a.state", started_at=datetime.now(UTC))
    storage.put(session_key("d.state"), session.to_json())
    cut(commit_key(1, "a.state"), 20)(storage)
    with StateStore(storage) as store:
        with pytest.raises(CorruptStateError, match="nothing was removed. A save that builds on it has not ended"):
            store.remove(["a.state"])
        assert "a.state" in store.names()


def test_the_error_about_a_removed_state_says_what_its_tombstone_says() -> None:
    storage = a_store()
    with StateStore(storage) as store:
        store.remove(["a.state"], reason="removed by hand")
        with pytest.raises(StatePrunedError, match=r"'a\.state' was removed from dict:// by .*UTC: removed by hand$"):
            store.info("a.state")
    old = datetime.now(UTC) - timedelta(days=3)
    session = SessionRecord(state="d.state", sequence=4, writer="w", base=None, started_at=old)
    storage.put(session_key("d.state"), session.to_json())
    with StateStore(storage) as store:
        store.gc()
        with pytest.raises(StatePrunedError, match="its writer was taken for dead"):
            store.load_state("d.state")


def test_the_latest_are_counted_without_the_damaged_ones_which_stop_them_until_they_are_older() -> None:
    storage = a_store()
    for number in (1, 3):
        cut(commit_key(number, STATES[number - 1]), 20)(storage)
    with StateStore(storage) as store:
        store.save_state(name="d.state")
        assert LatestStatesKeeper("", 2).select_from(store) == ["a.state"]
        with pytest.raises(CorruptStateError, match=r"nothing was removed.* rm STORE c\.state`"):
            Retention(store, LatestStatesKeeper("", 2))()
        assert store.names() == [*STATES, "d.state"]
        assert LatestStatesKeeper("", 1).select_from(store) == list(STATES)
        Retention(store, LatestStatesKeeper("", 1))()
        assert store.names() == ["d.state"]


def test_a_reason_that_two_policies_give_is_told_once() -> None:
    storage = a_store()
    policy = KeepAny((KeepLatest(1), KeepWithin(timedelta(days=1)), KeepPeriodic(daily=1)))
    with StateStore(storage) as store:
        plan = store.plan_retention(policy, now=datetime.now(UTC) - timedelta(days=2))
    (reason,) = plan.decisions[0].reasons
    assert reason.count("its age is unknown") == 1


def test_a_second_marker_of_a_name_hides_nothing_that_the_first_one_needs() -> None:
    storage = a_store()
    marker = json.loads(storage.objects[commit_key(2, "b.state")]) | {"sequence": 9, "reuses": [], "base": None}
    storage.objects[commit_key(9, "b.state")] = json.dumps(marker).encode()
    with StateStore(storage) as store:
        store.remove(["a.state", "c.state"])
        store.load_state("b.state", components=[])
        assert store.names() == ["b.state", "b.state"]
        assert "a.state/folder/frozen.bin.zst" in storage.objects
        assert store.remove(["b.state"]).removed == ("b.state", "b.state")
        assert store.names() == []


def test_a_second_marker_of_a_name_that_cannot_be_read_need_not_cost_the_state() -> None:
    storage = a_store()
    storage.objects[commit_key(9, "b.state")] = b"{}"
    with StateStore(storage) as store:
        with pytest.raises(CorruptStateError, match=r"rm STORE b\.state`.*keep .*delete the damaged marker by hand"):
            store.remove(["a.state"])
        del storage.objects[commit_key(9, "b.state")]
        assert store.remove(["a.state"]).removed == ("a.state",)


def test_retention_goes_by_the_later_of_two_markers_of_one_name() -> None:
    storage = a_store()
    marker = json.loads(storage.objects[commit_key(2, "b.state")])
    storage.objects[commit_key(9, "b.state")] = json.dumps(marker | {"sequence": 9}).encode()
    with StateStore(storage) as store:
        plan = store.plan_retention(KeepLatest(2))
        assert [state.name for state in plan.removed] == ["a.state"]
