"""A store with a spool: what is saved is safe at once, gets to the remote in order, and is found wherever it lies."""

from __future__ import annotations

import json
import logging
import random
import re
from collections.abc import Collection
from pathlib import Path
from types import SimpleNamespace

import pytest

from statevault.errors import (
    InvalidNameError,
    SaveTimeoutError,
    StateNotFoundError,
    StatePrunedError,
    StateVaultError,
    StorageAccessError,
    StorageError,
    StorageUnreachableError,
)
from statevault.format.records import CommitRecord
from statevault.state_persistence import KeepLatest, StateStore
from statevault.state_persistence.restore.download import StateReader
from statevault.state_persistence.spool import ReplicationPhase, ReplicationStatus, Spool
from statevault.state_persistence.spool.folder import SpoolFolder
from statevault.state_persistence.spool.ledger import LEDGER_KEY
from statevault.state_persistence.spool.tally import Tally
from statevault.storage import RetryPolicy
from tests.state_persistence.components import Folder, store_with
from tests.state_persistence.garbage import check_no_garbage
from tests.state_persistence.spool.spooling import Remote, content, numbered, quick, save, spooled, until
from tests.state_persistence.storages import DictStorage


def status(store: StateStore) -> ReplicationStatus:
    found = store.replication()
    assert found is not None
    return found


def names(storage: DictStorage) -> list[str]:
    return StateStore(storage).names()


def test_states_get_to_the_remote_in_their_order_and_bit_for_bit(tmp_path: Path) -> None:
    remote, folder = Remote(), Folder()
    with spooled(remote, tmp_path, folder) as store:
        save(store, folder, 1, 2, 3)
        store.flush(300)
        assert names(remote.inner) == ["1.state", "2.state", "3.state"]
        for number in (1, 2, 3):
            assert content(store, f"{number}.state") == numbered(number)
            assert StateStore(remote.inner).info(f"{number}.state").metadata == {"number": number}
        found = status(store)
        assert (found.replicated, found.pending, found.pending_bytes, found.failures) == (3, 0, 0, 0)
        assert found.last_replicated == "3.state"
        assert found.oldest_pending_age_s is None
    check_no_garbage(remote.inner)


def test_the_spool_is_an_ordinary_store_and_keeps_the_newest(tmp_path: Path) -> None:
    remote, folder = Remote(), Folder()
    with spooled(remote, tmp_path, folder) as store:
        save(store, folder, 1, 2, 3)
        store.flush(300)
        until(lambda: StateStore(tmp_path).names() == ["3.state"])
    with StateStore(tmp_path) as local:
        local.verify("3.state")
        local.gc()
    with spooled(remote, tmp_path, folder) as store:
        assert status(store).pending == 0


@pytest.mark.parametrize("keep", [0, 2])
def test_as_many_replicated_states_stay_as_wanted(tmp_path: Path, keep: int) -> None:
    remote, folder = Remote(), Folder()
    with spooled(remote, quick(tmp_path, keep_replicated=keep), folder) as store:
        save(store, folder, 1, 2, 3)
        store.flush(300)
        save(store, folder, 4)
        store.flush(300)
        until(lambda: StateStore(tmp_path).names() == ["3.state", "4.state"][2 - keep :])
    assert names(remote.inner) == ["1.state", "2.state", "3.state", "4.state"]


def test_only_what_changed_is_written_and_sent(tmp_path: Path) -> None:
    remote, folder = Remote(), Folder()
    frozen = random.Random(0).randbytes(300_000)
    with spooled(remote, tmp_path, folder) as store:
        for number in range(4):
            folder.files = {"frozen": frozen, "step": str(number).encode()}
            store.save_state(name=f"{number}.state")
            store.flush(300)
        sent = [info.new_size for info in StateStore(remote.inner).states()]
    assert sent[0] > 300_000
    assert max(sent[1:]) < 1000
    with spooled(remote, tmp_path, folder) as store:  # and by the next process
        store.load_state()
        folder.files["step"] = b"next"
        store.save_state(name="next.state")
        store.flush(300)
        assert StateStore(remote.inner).info("next.state").new_size < 1000


def test_a_save_needs_no_remote_and_what_is_pending_goes_when_it_is_back(tmp_path: Path) -> None:
    remote, folder = Remote(), Folder()
    remote.go_down()
    with spooled(remote, tmp_path, folder) as store:
        save(store, folder, 1, 2)
        until(lambda: status(store).phase is ReplicationPhase.RETRYING)
        found = status(store)
        assert (found.pending, found.replicated) == (2, 0)
        assert found.pending_bytes > 0
        assert found.oldest_pending_age_s is not None
        assert "the network is down" in found.last_error
        assert found.failures > 0
        remote.come_up()
        store.flush(300)
        assert status(store).pending == 0
    assert names(remote.inner) == ["1.state", "2.state"]


def test_what_an_earlier_process_has_left_goes_on_without_a_save(tmp_path: Path) -> None:
    remote, folder = Remote(), Folder()
    remote.go_down()
    with spooled(remote, tmp_path, folder) as store:
        save(store, folder, 1, 2)
    remote.come_up()
    with spooled(remote, tmp_path) as store:
        until(lambda: status(store).pending == 0)
    assert names(remote.inner) == ["1.state", "2.state"]


def test_a_refusal_is_told_and_tried_again(tmp_path: Path) -> None:
    remote, folder = Remote(error=StorageAccessError("wrong key")), Folder()
    with spooled(remote, tmp_path, folder) as store:
        save(store, folder, 1)
        until(lambda: status(store).phase is ReplicationPhase.REFUSED)
        assert "wrong key" in status(store).last_error
        remote.come_up()
        until(lambda: status(store).pending == 0)
    assert names(remote.inner) == ["1.state"]


@pytest.mark.parametrize(
    ("error", "phase"),
    [
        (StorageUnreachableError("the network is down", transient=True), ReplicationPhase.RETRYING),
        (StorageAccessError("wrong key"), ReplicationPhase.REFUSED),
    ],
)
def test_waiting_for_the_remote_draws_nothing_from_the_global_generator(
    tmp_path: Path, error: StorageError, phase: ReplicationPhase
) -> None:
    """An agent that is resumed goes on with the numbers that it would have drawn, whatever its network did."""
    folder = Folder()
    with spooled(Remote(error=error), tmp_path, folder) as store:
        random.seed(1)
        before = random.getstate()
        save(store, folder, 1)
        until(lambda: status(store).phase is phase and status(store).failures > 2)
        assert random.getstate() == before


def test_an_outage_is_logged_once_and_so_is_its_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    remote, folder = Remote(), Folder()
    remote.go_down()
    with caplog.at_level(logging.INFO), spooled(remote, tmp_path, folder) as store:
        save(store, folder, 1)
        until(lambda: status(store).failures > 10)
        remote.come_up()
        store.flush(300)
    logged = [record.message for record in caplog.records if "Replication to" in record.message]
    assert len(logged) == 2
    assert "is interrupted" in logged[0]
    assert "goes on" in logged[1]


def test_a_refusal_is_logged_as_one_with_its_reason_and_the_time_of_the_next_try(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    remote = Remote(error=StorageAccessError("wrong key"))
    with spooled(remote, quick(tmp_path, refused_delay_s=300.0)) as store:
        save(store, Folder(), 1)
        until(lambda: status(store).phase is ReplicationPhase.REFUSED and bool(caplog.records))
        remote.come_up()
        store.flush(300)
    logged = [record.message for record in caplog.records if "refuse" in record.message]
    assert logged == ["dict:// refuses what is replicated; it is tried again in about 300 s: wrong key"]
    assert "is interrupted" not in caplog.text


def test_a_refusal_in_an_outage_is_logged_too(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    clock = SimpleNamespace(monotonic=lambda: now[0])
    monkeypatch.setattr("statevault.state_persistence.spool.tally.time", clock)
    tally = Tally("dict://", refused_delay_s=300.0)
    outage = StorageUnreachableError("the network is down", transient=True)
    for at_s, error in (
        (0.0, outage),
        (100.0, outage),
        (200.0, StorageAccessError("expired")),
        (500.0, StorageAccessError("expired")),
        (900.0, StorageAccessError("expired")),
    ):
        now[0] = 1000.0 + at_s
        tally.count_failed_call(error)
        tally.count_failed_try(error, again_in_s=300.0)
    assert [record.message.rpartition(": ")[2] for record in caplog.records] == [
        "the network is down",
        "expired",
        "expired",
    ]
    assert caplog.records[1].message.startswith("dict:// refuses")


@pytest.mark.parametrize("where", ["list _vault/", "get _vault/format.json"])
def test_an_error_nobody_thought_of_does_not_end_the_replication(
    where: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    remote, folder = Remote(), Folder()
    bugs = [ZeroDivisionError("a bug")]

    def stumble(call: str) -> None:
        if bugs and call == where:
            raise bugs.pop()

    remote.before = stumble
    with spooled(remote, tmp_path, folder) as store:
        save(store, folder, 1)
        store.flush(300)
    assert names(remote.inner) == ["1.state"]
    assert re.search(r"A state was not replicated, and is tried again in 0\.[01] s: a bug", caplog.text)


# -- what a store with a spool speaks of


def test_a_store_speaks_of_the_remote_and_then_of_what_is_pending(tmp_path: Path) -> None:
    remote, folder = Remote(), Folder()
    with spooled(remote, tmp_path, folder) as store:
        save(store, folder, 1, 2)
        store.flush(300)
        remote.before = hold_data(remote)
        save(store, folder, 3, 4)
        assert store.names() == ["1.state", "2.state", "3.state", "4.state"]
        assert [info.name for info in store.states()] == store.names()
        latest = store.latest()
        assert latest is not None
        assert latest.name == "4.state"
        assert store.info("4.state") == latest
        assert store.info("1.state").metadata == {"number": 1}
        assert store.verify("4.state").name == "4.state"
        assert store.verify("1.state").name == "1.state"
        assert store.open_state("4.state").record.state == "4.state"
        assert store.exists()
        assert [state.name for state in store.plan_retention(KeepLatest(1)).removed] == ["1.state"]
        assert "4.state" in store.protected()


def hold_data(remote: Remote):  # type: ignore[no-untyped-def] # noqa: ANN201 - a callback
    """What makes the remote refuse data, and nothing else."""

    def refuse(call: str) -> None:
        if call.startswith("put ") and ".state/" in call:
            raise StorageUnreachableError("no data passes", transient=True)

    return refuse


def test_a_state_is_found_by_name_and_by_both_its_paths(tmp_path: Path) -> None:
    remote, folder = StateStore(tmp_path / "remote"), Folder()
    with spooled(str(tmp_path / "remote"), tmp_path / "spool", folder) as store:
        path = store.save_state(name="1.state")
        assert path == remote.path("1.state")
        for place in ("1.state", path, tmp_path / "spool" / "1.state"):
            assert store.load_state(place).name == "1.state"
        store.flush(300)
        for place in ("1.state", path, tmp_path / "spool" / "1.state"):
            assert store.load_state(place).name == "1.state"
        save(store, folder, 2, 3)
        store.flush(300)
        until(lambda: StateStore(tmp_path / "spool").names() == ["3.state"])
        for place in ("1.state", path, tmp_path / "spool" / "1.state"):
            assert store.load_state(place).name == "1.state"
        with pytest.raises(StateNotFoundError):
            store.load_state(tmp_path / "spool" / "9.state")
        (tmp_path / "spool" / "9.state").mkdir()
        with pytest.raises(StateNotFoundError):
            store.load_state("9.state")


def test_a_state_that_leaves_the_spool_while_it_is_read_is_loaded_from_the_remote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote, folder = Remote(), Folder()
    with spooled(remote, quick(tmp_path, keep_replicated=3), folder) as store:
        save(store, folder, 1, 2)
        store.flush(300)
        reads = StateReader.read_files

        def remove_and_read(self: StateReader, *arguments: object, **options: object) -> object:
            StateStore(tmp_path).remove(["1.state"])
            return reads(self, *arguments, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(StateReader, "read_files", remove_and_read)
        folder.files = {}
        assert store.load_state("1.state").name == "1.state"
        assert folder.files == numbered(1)
        assert StateStore(tmp_path).names() == ["2.state"]


def test_the_newest_is_loaded_from_the_spool_without_the_remote(tmp_path: Path) -> None:
    remote, folder = Remote(), Folder()
    remote.go_down()
    with spooled(remote, tmp_path, folder) as store:
        save(store, folder, 1, 2)
    with spooled(remote, tmp_path, folder) as store:
        folder.files = {}
        assert store.load_state("latest").name == "2.state"
        assert folder.files == numbered(2)


def test_the_remote_is_loaded_from_where_nothing_is_pending(tmp_path: Path) -> None:
    remote, folder = Remote(), Folder()
    with spooled(remote, tmp_path, folder) as store, StateStore(remote.inner) as other:
        other.register("folder", folder)
        save(other, folder, 1)
        assert store.load_state("latest").name == "1.state"
        save(store, folder, 2)
        store.flush(300)
        save(other, folder, 3)
        folder.files = {}
        assert store.load_state("latest").name == "3.state"
        assert folder.files == numbered(3)


def test_a_state_of_the_remote_that_the_spool_still_has_is_not_fetched(tmp_path: Path) -> None:
    remote, folder = Remote(), Folder()
    with spooled(remote, tmp_path, folder) as store:
        save(store, folder, 1)
        store.flush(300)
    calls: list[str] = []
    remote.before = calls.append
    with spooled(remote, tmp_path, folder) as store:
        folder.files = {}
        assert store.load_state("latest").name == "1.state"
        assert folder.files == numbered(1)
    # By the load and by the replication, which looks whether it is still the same remote.
    assert set(calls) == {"get _vault/format.json", "list _vault/"}


def test_an_unreachable_remote_falls_back_to_what_the_spool_has_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    remote, folder = Remote(), Folder()
    with spooled(remote, tmp_path, folder) as store:
        save(store, folder, 1)
        store.flush(300)
    remote.go_down()
    with spooled(remote, tmp_path, folder) as store:
        folder.files = {}
        assert store.load_state("latest").name == "1.state"
        assert folder.files == numbered(1)
        assert "can't be reached" in caplog.text
        latest = store.latest()
        assert latest is not None
        assert latest.name == store.info("latest").name == "1.state"
        with pytest.raises(StorageUnreachableError):
            store.states()  # not everything: it must not seem to be


def test_a_remote_that_goes_away_while_a_state_is_loaded_falls_back_too(tmp_path: Path) -> None:
    remote, folder = Remote(), Folder()
    with spooled(remote, tmp_path, folder) as store:
        save(store, folder, 1)
        store.flush(300)
    with StateStore(remote.inner) as other:
        other.register("folder", Folder(numbered(2)))
        other.save_state(name="2.state")

    def break_data(call: str) -> None:
        if call.startswith("get 2.state"):
            raise StorageUnreachableError("gone", transient=True)

    remote.before = break_data
    with spooled(remote, tmp_path, folder) as store:
        assert store.load_state("latest").name == "1.state"


def test_nothing_to_load_is_not_taken_for_a_fresh_start_while_the_remote_is_away(tmp_path: Path) -> None:
    remote = Remote()
    with spooled(remote, tmp_path) as store:
        with pytest.raises(StateNotFoundError):
            store.load_state("latest")
        assert store.latest() is None
        assert not store.exists()
        remote.go_down()
        with pytest.raises(StorageUnreachableError):
            store.load_state("latest")
        with pytest.raises(StorageUnreachableError):
            store.latest()


def test_a_good_state_of_the_remote_is_preferred_to_a_pending_one_after_an_error(tmp_path: Path) -> None:
    remote, folder = Remote(), Folder()
    with spooled(remote, tmp_path, folder) as store:
        save(store, folder, 1)
        store.flush(300)
        remote.before = hold_data(remote)
        store.save_state(name="crash.state", metadata={"exit": "error: boom"})
        assert store.load_state("latest").name == "1.state"


def wiped(remote: Remote, *, by_whom: str) -> None:
    remote.inner.objects.clear()
    if by_whom == "another run":
        with store_with(remote.inner, folder=Folder(numbered(9))) as store:
            store.save_state(name="1.state")


@pytest.mark.parametrize("by_whom", ["nobody", "another run"])
@pytest.mark.parametrize("then", ["save", "load", "restart"])
def test_a_remote_that_was_wiped_gets_again_what_the_spool_still_has(
    then: str, by_whom: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    remote, folder = Remote(), Folder()
    with spooled(remote, tmp_path, folder) as store:
        save(store, folder, 1, 2)
        store.flush(300)
        wiped(remote, by_whom=by_whom)
        if then == "save":
            save(store, folder, 3)
        elif then == "load":
            assert store.load_state("latest").name == "2.state"
            until(lambda: "2.state" in names(remote.inner))
        store.flush(300)
    if then == "restart":
        with spooled(remote, tmp_path, folder):
            until(lambda: "2.state" in names(remote.inner))
    kept = ["2.state", *(["3.state"] if then == "save" else [])]
    assert names(remote.inner) == (["1.state"] if by_whom == "another run" else []) + kept
    assert content(StateStore(remote.inner), "2.state") == numbered(2)
    assert "was wiped: what is in the spool" in caplog.text


def test_an_empty_remote_gets_again_what_the_version_before_had_replicated(tmp_path: Path) -> None:
    remote, folder = Remote(), Folder()
    with spooled(remote, tmp_path, folder) as store:
        save(store, folder, 1, 2)
        store.flush(300)
    ledger = json.loads((tmp_path / LEDGER_KEY).read_text())
    assert ledger.pop("ids")
    (tmp_path / LEDGER_KEY).write_text(json.dumps(ledger))
    wiped(remote, by_whom="nobody")
    with spooled(remote, tmp_path, folder):
        until(lambda: names(remote.inner) == ["2.state"])


def test_a_remote_that_was_wiped_is_replicated_to_when_the_spool_has_nothing_of_it_any_more(tmp_path: Path) -> None:
    remote, folder = Remote(), Folder()
    with spooled(remote, tmp_path, folder) as store:
        save(store, folder, 1)
        store.flush(300)
    wiped(remote, by_whom="another run")
    with StateStore(tmp_path) as spool:
        spool.register("folder", folder)
        save(spool, folder, 2)
        spool.remove(["1.state"])
    with spooled(remote, tmp_path, folder) as store:
        store.flush(300)
    assert names(remote.inner) == ["1.state", "2.state"]


def test_a_remote_that_is_wiped_while_a_state_is_copied_gets_it_again(tmp_path: Path) -> None:
    remote, folder = Remote(), Folder()
    happened: list[str] = []

    def before(call: str) -> None:
        if call.startswith("put 2.state/") and not happened:
            happened.append(call)
            wiped(remote, by_whom="another run")

    remote.before = before
    with spooled(remote, tmp_path, folder) as store:
        save(store, folder, 1)
        store.flush(300)
        save(store, folder, 2)
        store.flush(300)
        assert happened
        assert set(names(remote.inner)) == {"1.state", "1-2.state", "2-2.state"}
        for number, name in ((9, "1.state"), (1, "1-2.state"), (2, "2-2.state")):
            assert content(StateStore(remote.inner), name) == numbered(number)


def test_a_spool_that_was_emptied_under_its_notes_starts_anew(tmp_path: Path) -> None:
    remote, folder = Remote(), Folder()
    with spooled(remote, tmp_path, folder) as store:
        save(store, folder, 1)
        store.flush(300)
    for path in tmp_path.rglob("_vault/**/*"):
        if path.is_file():
            path.unlink()
    for path in tmp_path.glob("1.state/**/*"):
        if path.is_file():
            path.unlink()
    with spooled(remote, tmp_path, folder) as store:
        folder.files = numbered(7)
        store.save_state(name="1.state")
        store.flush(300)
    assert names(remote.inner) == ["1.state", "1-2.state"]
    assert content(StateStore(remote.inner), "1-2.state") == numbered(7)


def test_damaged_notes_are_made_anew_from_the_remote(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    remote, folder = Remote(), Folder()
    with spooled(remote, tmp_path, folder) as store:
        save(store, folder, 1)
        store.flush(300)
    (tmp_path / LEDGER_KEY).write_bytes(b"{")
    with spooled(remote, tmp_path, folder) as store:
        save(store, folder, 2)
        store.flush(300)
    assert names(remote.inner) == ["1.state", "2.state"]
    assert "is compared with the remote" in caplog.text


def test_another_remote_gets_what_is_in_the_spool(tmp_path: Path) -> None:
    folder = Folder()
    with spooled(str(tmp_path / "a"), tmp_path / "spool", folder) as store:
        save(store, folder, 1)
        store.flush(300)
    with spooled(str(tmp_path / "b"), tmp_path / "spool", folder) as store:
        save(store, folder, 2)
        store.flush(300)
        assert StateStore(tmp_path / "b").names() == ["1.state", "2.state"]


def test_a_name_that_somebody_else_uses_at_the_remote_gets_a_suffix_there(tmp_path: Path) -> None:
    remote, folder = Remote(), Folder()
    with StateStore(remote.inner) as other:
        other.register("folder", Folder({"theirs": b"1"}))
        other.save_state(name="1.state")
    with spooled(remote, tmp_path, folder) as store:
        save(store, folder, 1)
        store.flush(300)
        assert names(remote.inner) == ["1.state", "1-2.state"]
        assert store.load_state("1.state").metadata == {"number": 1}
        store.pin("1.state", "mine")
        assert store.pins() == {"1-2.state": ("mine",)}


def test_a_state_that_has_another_name_at_the_remote_is_still_found_by_its_own(tmp_path: Path) -> None:
    remote, folder = Remote(), Folder()
    with spooled(remote, tmp_path, folder) as store:
        remote.before = hold_data(remote)
        save(store, folder, 1)
        until(lambda: status(store).failures > 20)
        remote.before = lambda call: None
        store.flush(300)
        save(store, folder, 2)
        store.flush(300)
        until(lambda: StateStore(tmp_path).names() == ["2.state"])
        [renamed, _] = store.names()
        assert renamed.startswith("1-")
        assert store.load_state("1.state").name == renamed
        assert store.info(renamed).name == renamed
        store.pin("1.state")
        assert store.unpin("1.state") == 1
        assert store.remove(["1.state"]).removed == (renamed,)


def test_a_damaged_state_is_told_and_those_behind_it_go_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    remote, folder = Remote(), Folder()
    remote.go_down()
    with spooled(remote, tmp_path, folder) as store:
        save(store, folder, 1)
        folder.files = {"own": random.Random(1).randbytes(10_000)}
        store.save_state(name="2.state")
        save(store, folder, 3)
        (data,) = (tmp_path / "2.state").rglob("own*")
        data.write_bytes(data.read_bytes()[:-1] + b"!")
        remote.come_up()
        store.flush(300)
        assert names(remote.inner) == ["1.state", "3.state"]
        assert status(store).damaged == 1
        assert "2.state is damaged in the spool" in caplog.text
    with spooled(remote, tmp_path, folder) as store:
        assert status(store).pending == 0


# -- removing and pinning


def test_a_pending_state_can_be_removed_and_never_gets_to_the_remote(tmp_path: Path) -> None:
    remote, folder = Remote(), Folder()
    with spooled(remote, tmp_path, folder) as store:
        remote.before = hold_data(remote)
        save(store, folder, 1, 2)
        assert store.remove(["1.state"]).removed == ("1.state",)
        remote.before = lambda call: None
        store.flush(300)
        assert [info.metadata for info in StateStore(remote.inner).states()] == [{"number": 2}]
        assert names(remote.inner) == store.names()
        with pytest.raises(StatePrunedError):
            StateStore(tmp_path).load_state("1.state")


def test_a_state_that_is_removed_while_it_is_copied_does_not_come_back(tmp_path: Path) -> None:
    remote, folder = Remote(), Folder()
    stores: list[StateStore] = []

    def remove(call: str) -> None:
        if call.startswith("put _vault/commits/") and "1.state" in call and stores:
            stores.pop().remove(["1.state"])

    remote.before = remove
    with spooled(remote, tmp_path, folder) as store:
        stores.append(store)
        save(store, folder, 1, 2)
        store.flush(300)
        until(lambda: names(remote.inner) == ["2.state"])
    check_no_garbage(remote.inner)


def test_a_replicated_state_is_removed_from_both(tmp_path: Path) -> None:
    remote, folder = Remote(), Folder()
    with spooled(remote, tmp_path, folder) as store:
        save(store, folder, 1)
        store.flush(300)
        assert store.remove(["1.state"]).removed == ("1.state",)
        assert store.names() == StateStore(tmp_path).names() == names(remote.inner) == []


def test_the_pin_of_a_pending_state_goes_to_the_remote_with_it(tmp_path: Path) -> None:
    remote, folder = Remote(), Folder()
    with spooled(remote, tmp_path, folder) as store:
        remote.before = hold_data(remote)
        save(store, folder, 1, 2)
        store.pin("1.state", "paper")
        assert store.pins() == {"1.state": ("paper",)}
        assert store.remove(["1.state"]).spared == ("1.state",)
        remote.before = lambda call: None
        store.flush(300)
        name = StateStore(remote.inner).names()[0]  # that of the first or of a later try
        assert StateStore(remote.inner).pins() == store.pins() == {name: ("paper",)}
        assert store.unpin("1.state") == 1
        assert store.pins() == {}


def test_the_pin_of_a_replicated_state_is_put_at_the_remote(tmp_path: Path) -> None:
    remote, folder = Remote(), Folder()
    with spooled(remote, tmp_path, folder) as store:
        save(store, folder, 1)
        store.flush(300)
        store.pin("1.state")
        assert StateStore(remote.inner).pins() == {"1.state": ("pin",)}
        assert StateStore(tmp_path).pins() == {}


def test_a_pin_that_is_put_while_its_state_is_noted_as_replicated_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote, folder = Remote(), Folder()
    note = SpoolFolder.note_done

    def pin_and_note(self: SpoolFolder, record: CommitRecord, remote_name: str | None, *, ids: Collection[str]) -> None:
        store.pin(record.state, "late")
        note(self, record, remote_name, ids=ids)

    with spooled(remote, tmp_path, folder) as store:
        monkeypatch.setattr(SpoolFolder, "note_done", pin_and_note)
        save(store, folder, 1)
        store.flush(300)
        until(lambda: StateStore(remote.inner).pins() == {"1.state": ("late",)})


def test_copies_are_of_what_is_at_the_remote(tmp_path: Path) -> None:
    remote, folder = Remote(), Folder()
    with spooled(remote, tmp_path / "spool", folder) as store, StateStore(tmp_path / "copy") as target:
        save(store, folder, 1)
        store.flush(300)
        assert [state.outcome for state in store.copy_states(target, ["1.state"]).states] == ["copied"]
        remote.before = hold_data(remote)
        save(store, folder, 2)
        with pytest.raises(StateNotFoundError, match=r"2\.state"):
            store.copy_states(target, ["2.state"])


# -- the end


def test_closing_does_not_wait_for_a_remote_that_is_away(tmp_path: Path) -> None:
    remote, folder = Remote(), Folder()
    remote.go_down()
    store = spooled(remote, quick(tmp_path, linger_s=3600.0), folder)
    save(store, folder, 1)
    until(lambda: status(store).phase is ReplicationPhase.RETRYING)
    store.close()
    assert status(store).phase is ReplicationPhase.STOPPED
    with pytest.raises(StateVaultError, match="closed"):
        store.flush()
    assert StateStore(tmp_path).names() == ["1.state"]


def test_closing_ends_a_long_wait_for_the_next_try(tmp_path: Path) -> None:
    remote, folder = Remote(), Folder()
    patient = RetryPolicy(max_attempts=10_000, first_delay_s=3600.0, max_delay_s=3600.0, deadline_s=1e9)
    store = spooled(remote, quick(tmp_path, retry=patient), folder)
    remote.go_down()
    calls: list[str] = []
    remote.before = calls.append
    save(store, folder, 1)
    until(lambda: status(store).failures > 0)
    store.close()
    assert store._replicator is not None
    assert store._replicator.has_ended
    # What was under way when the first call failed may have come after that. But nothing was tried again.
    assert len(calls) == len(set(calls))


def test_flushing_tries_again_at_once(tmp_path: Path) -> None:
    remote, folder = Remote(), Folder()
    patient = RetryPolicy(max_attempts=10_000, first_delay_s=3600.0, max_delay_s=3600.0, deadline_s=1e9)
    with spooled(remote, quick(tmp_path, retry=patient), folder) as store:
        remote.go_down()
        save(store, folder, 1)
        until(lambda: status(store).failures > 0)
        remote.come_up()
        store.flush(300)
        assert names(remote.inner) == ["1.state"]


def test_flushing_tries_again_at_once_what_has_just_failed_and_does_not_wait_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote, folder = Remote(), Folder()
    patient = RetryPolicy(max_attempts=10_000, first_delay_s=3600.0, max_delay_s=3600.0, deadline_s=1e9)
    with spooled(remote, quick(tmp_path, retry=patient), folder) as store:
        remote.go_down()
        count = Tally.count_failed_call

        def hurry_after(tally: Tally, error: StorageError) -> None:
            count(tally, error)
            if remote.error is not None:
                remote.come_up()
                assert store._replicator is not None
                store._replicator.hurry()

        monkeypatch.setattr(Tally, "count_failed_call", hurry_after)
        save(store, folder, 1)
        until(lambda: names(remote.inner) == ["1.state"])


def test_closing_waits_no_longer_for_a_remote_that_goes_away(tmp_path: Path) -> None:
    remote, folder = Remote(), Folder()
    store = spooled(remote, quick(tmp_path, linger_s=3600.0), folder)
    remote.before = lambda call: remote.go_down() if call.startswith("put 1.state") else None
    save(store, folder, 1)
    store.close()
    assert names(remote.inner) == []


def test_closing_waits_for_a_remote_that_answers(tmp_path: Path) -> None:
    remote, folder = Remote(), Folder()
    with spooled(remote, quick(tmp_path, linger_s=60.0), folder) as store:
        save(store, folder, 1, 2, 3)
    assert names(remote.inner) == ["1.state", "2.state", "3.state"]


def test_flushing_has_an_end(tmp_path: Path) -> None:
    remote, folder = Remote(), Folder()
    remote.go_down()
    with spooled(remote, tmp_path, folder) as store:
        save(store, folder, 1)
        with pytest.raises(SaveTimeoutError, match="replicating 1 states"):
            store.flush(0.1)


def test_flushing_does_not_wait_for_what_is_saved_meanwhile(tmp_path: Path) -> None:
    remote, folder = Remote(), Folder()
    with spooled(remote, tmp_path, folder) as store:
        save(store, folder, 1)

        def save_more(call: str) -> None:
            if call.startswith("put _vault/commits/") and "1.state" in call:
                remote.before = hold_data(remote)
                save(store, folder, 2)

        remote.before = save_more
        store.flush(300)
        assert status(store).pending <= 1


def test_a_copy_that_is_broken_off_by_the_end_takes_back_what_it_has_put(tmp_path: Path) -> None:
    remote = Remote()
    folder = Folder({"big": random.Random(0).randbytes(3_000_000)})
    store = spooled(remote, quick(tmp_path, bandwidth=100_000.0), folder)
    store.save_state(name="1.state")
    until(lambda: any("sessions" in key for key in remote.inner.objects))
    store.close()
    assert names(remote.inner) == []
    assert not [key for key in remote.inner.objects if key.startswith("1.state/") or "sessions" in key]


def test_the_bandwidth_is_limited(tmp_path: Path) -> None:
    remote = Remote()
    folder = Folder({"big": random.Random(0).randbytes(400_000)})
    times: list[float] = []
    with spooled(remote, quick(tmp_path, bandwidth=1e9), folder) as store:
        replicator = store._replicator
        assert replicator is not None
        replicator._bucket._sleep = times.append  # type: ignore[union-attr]
        store.save_state(name="1.state")
        store.flush(300)
    assert 0 < max(times) <= 64 * 1024 / 1e9 * 10
    assert names(remote.inner) == ["1.state"]


# -- settings


def test_a_store_without_a_spool_is_as_it_was(tmp_path: Path) -> None:
    folder = Folder(numbered(1))
    with StateStore(tmp_path) as store:
        store.register("folder", folder)
        store.save_state(name="1.state")
        assert store.replication() is None
        store.flush()
        assert store.names() == ["1.state"]


def test_settings_that_can_not_be_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidNameError, match="local disk"):
        Spool("s3://bucket/states")
    with pytest.raises(InvalidNameError, match="local disk"):
        StateStore("s3://b/x", spool="s3://x/y")
    (tmp_path / "link").symlink_to(tmp_path / "store")
    for store, spool in (("store", "store"), ("store", "link"), ("link", "store")):
        with pytest.raises(InvalidNameError, match="the store itself"):
            StateStore(tmp_path / store, spool=tmp_path / spool)
    for wrong in ({"bandwidth": 0}, {"max_bytes": -1}, {"keep_replicated": -1}, {"linger_s": -1}):
        with pytest.raises(ValueError, match="not"):
            Spool(tmp_path, **wrong)  # type: ignore[arg-type]


def test_a_state_that_is_given_as_base_lies_in_the_spool(tmp_path: Path) -> None:
    remote, folder = Remote(), Folder()
    with spooled(remote, quick(tmp_path, keep_replicated=5), folder) as store:
        save(store, folder, 1)
        store.flush(300)
        store.save_state(name="2.state", base="1.state")
        assert store.info("2.state").base == "1.state"
        store.flush(300)
        assert StateStore(remote.inner).info("2.state").base == "1.state"


def test_an_error_of_the_spool_folder_is_told_in_the_status(tmp_path: Path) -> None:
    (tmp_path / "_vault").mkdir()
    (tmp_path / "_vault" / "format.json").write_text("{}")
    with spooled(Remote(), tmp_path, Folder()) as store:
        assert "format" in status(store).last_error
        with pytest.raises((StorageError, StateVaultError)):
            store.save_state()
