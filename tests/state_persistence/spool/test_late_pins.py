"""Pins that are put just when their state is noted as replicated: none is lost, whatever fails or dies there."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from pathlib import Path

import pytest

from statevault.errors import StorageUnreachableError
from statevault.format.records import CommitRecord
from statevault.state_persistence import StateStore
from statevault.state_persistence.spool import ReplicationPhase
from statevault.state_persistence.spool.folder import SpoolFolder
from statevault.state_persistence.spool.ledger import LEDGER_KEY
from statevault.storage import LocalStorage
from tests.state_persistence.components import Folder
from tests.state_persistence.spool.spooling import Remote, quick, save, spooled, until
from tests.state_persistence.spool.test_crash_points import close, fill, replicator
from tests.state_persistence.storages import DictStorage, ProcessDiedError


def before_and_after_the_note(
    monkeypatch: pytest.MonkeyPatch, before: Callable[[str], None], after: Callable[[], None] = lambda: None
) -> None:
    """Do something between the first look at a state's pins and its note, and between that and the second look."""
    note = SpoolFolder.note_done

    def noting(self: SpoolFolder, record: CommitRecord, remote_name: str | None, *, ids: Collection[str]) -> None:
        monkeypatch.setattr(SpoolFolder, "note_done", note)
        before(record.state)
        note(self, record, remote_name, ids=ids)
        after()

    monkeypatch.setattr(SpoolFolder, "note_done", noting)


def phase(store: StateStore) -> ReplicationPhase | None:
    status = store.replication()
    return None if status is None else status.phase


def fail_to_pin(call: str) -> None:
    if call.startswith("put _vault/pins/"):
        raise StorageUnreachableError("the network is down", transient=True)


def pinned_late_in_an_outage(store: StateStore, remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    """Save a state that is replicated and pinned, but that is not pinned at the remote."""
    before_and_after_the_note(monkeypatch, before=lambda state: store.pin(state, "late"), after=remote.go_down)
    save(store, Folder(), 1)
    until(lambda: remote.error is not None and phase(store) is ReplicationPhase.RETRYING)


def test_a_late_pin_gets_to_the_remote_when_the_outage_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remote = Remote()
    with spooled(remote, tmp_path) as store:
        pinned_late_in_an_outage(store, remote, monkeypatch)
        status = store.replication()
        assert status is not None
        assert (status.replicated, status.pending, status.last_replicated) == (1, 0, "1.state")
        remote.come_up()
        store.flush(300)  # which waits for pins as well
        assert StateStore(remote.inner).pins() == store.pins() == {"1.state": ("late",)}
        assert StateStore(remote.inner).remove(["1.state"]).spared == ("1.state",)


def test_flushing_has_an_end_while_a_pin_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remote = Remote()
    with spooled(remote, tmp_path) as store:
        pinned_late_in_an_outage(store, remote, monkeypatch)
        with pytest.raises(TimeoutError):
            store.flush(0.1)


def test_a_late_pin_holds_in_the_outage_for_those_who_ask_this_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = Remote()
    with StateStore(remote.inner) as other:  # so that the state gets another name at the remote
        other.register("folder", Folder({"x": b"1"}))
        other.save_state(name="1.state")
    with spooled(remote, tmp_path) as store:
        pinned_late_in_an_outage(store, remote, monkeypatch)
        remote.before = fail_to_pin
        remote.come_up()
        assert store.pins() == {"1-2.state": ("late",)}
        assert store.protected()["1-2.state"][-1] == "pinned as 'late'"
        assert store.remove(["1-2.state"]).spared == ("1-2.state",)
        assert store.unpin("1.state") == 1
        assert store.pins() == {}


def test_a_late_pin_is_carried_over_by_the_next_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path)
    remote = DictStorage()

    def die() -> None:
        raise ProcessDiedError

    before_and_after_the_note(monkeypatch, before=lambda state: StateStore(tmp_path).pin(state, "late"), after=die)
    replicating = replicator(tmp_path, remote)
    with pytest.raises(ProcessDiedError):
        replicating.run_once()
    close(replicating)
    assert StateStore(remote).pins() == {}
    replicating = replicator(tmp_path, remote)
    replicating.run_once()
    assert StateStore(remote).pins() == {"1.state": ("late",)}
    StateStore(remote).unpin("1.state")
    replicating.run_once()
    assert StateStore(remote).pins() == {}  # carried over once: what is done with it there is not undone
    close(replicating)


def test_a_pin_that_was_taken_back_meanwhile_does_not_get_to_the_remote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = Remote()
    with spooled(remote, tmp_path) as store:
        pinned_late_in_an_outage(store, remote, monkeypatch)
        StateStore(tmp_path).unpin("1.state")
        remote.come_up()
        store.flush(300)
        assert StateStore(remote.inner).pins() == {}


def test_notes_of_an_earlier_version_are_read(tmp_path: Path) -> None:
    remote, folder = Remote(), Folder()
    with spooled(remote, quick(tmp_path, keep_replicated=3), folder) as store:
        save(store, folder, 1, 2)
        store.flush(300)
    storage = LocalStorage(tmp_path)
    ledger = json.loads(storage.get(LEDGER_KEY))
    for done in ledger["done"].values():
        assert done.pop("pins_wait") is False
    storage.put(LEDGER_KEY, json.dumps(ledger).encode())
    with spooled(remote, quick(tmp_path, keep_replicated=3), folder) as store:
        store.flush(300)
        status = store.replication()
        assert status is not None
        assert (status.pending, status.replicated) == (0, 0)
