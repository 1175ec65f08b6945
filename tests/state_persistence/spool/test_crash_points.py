"""Replication that dies or fails at every single call, of the remote and of the spool, in each way a call can fail.

Invariants, after each and a restart: every state of the spool gets to the remote, bit for bit, the order of states is
kept, nothing is there twice that was acknowledged, and the newest is the newest.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from statevault.errors import StateVaultError
from statevault.state_persistence import StateStore
from statevault.state_persistence.records.tombstones import put_tombstone
from statevault.state_persistence.spool.config import Spool
from statevault.state_persistence.spool.folder import SpoolFolder
from statevault.state_persistence.spool.replicator import Replicator
from statevault.storage import LocalStorage, RetryPolicy, Storage
from tests.profiles import rounds
from tests.state_persistence.components import Folder
from tests.state_persistence.garbage import check_no_garbage
from tests.state_persistence.spool.spooling import content, numbered, save
from tests.state_persistence.storages import FAILURES, DictStorage, FailingStorage, Failure, ProcessDiedError

NUMBERS = (1, 2, 3)
ONCE = RetryPolicy(max_attempts=1, first_delay_s=0.0, max_delay_s=0.0, deadline_s=0.0)
STEP = rounds(short=5, long=1)


def fill(path: Path) -> None:
    folder = Folder()
    with StateStore(path) as store:
        store.register("folder", folder)
        save(store, folder, *NUMBERS)


def replicator(path: Path, remote: Storage, spool: Storage | None = None) -> Replicator:
    """One whose thread does not run."""
    config = Spool(path, retry=ONCE, keep_replicated=1)
    return Replicator(SpoolFolder(config, remote.url, storage=spool), remote, by=f"replicator-{secrets.token_hex(4)}")


def close(replicating: Replicator) -> None:
    """What the death of a process does."""
    replicating._owner.release()
    replicating._folder.close()


def original(name: str) -> int:
    """The number of a state, by its name at the remote."""
    return int(name.partition(".")[0].partition("-")[0])


def check(path: Path, remote: DictStorage) -> None:
    """Replicate to the end, and compare."""
    replicating = replicator(path, remote)
    for _ in range(10):
        replicating.run_once()
    assert replicating.status().pending == 0
    close(replicating)
    store = StateStore(remote)
    names = store.names()
    for name in names:
        assert content(store, name) == numbered(original(name))
        assert store.info(name).metadata == {"number": original(name)}
    assert [original(name) for name in names] == list(NUMBERS)
    assert StateStore(path).names() == [f"{NUMBERS[-1]}.state"]
    check_no_garbage(remote)


def calls_at_the_remote(path: Path) -> int:
    return len(calls(path))


def calls_at_the_spool(path: Path) -> int:
    fill(path)
    counting = FailingStorage(LocalStorage(path))
    replicating = replicator(path, DictStorage(), counting)
    replicating.run_once()
    close(replicating)
    return len(counting.calls)


def prefixes_in_order(remote: DictStorage) -> bool:
    """Whether no state is at the remote before an earlier one."""
    numbers = [original(name) for name in StateStore(remote).names()]
    return numbers == list(NUMBERS[: len(numbers)])


@pytest.mark.parametrize("failure", FAILURES)
def test_a_process_that_dies_at_any_call_to_the_remote(tmp_path: Path, failure: Failure) -> None:
    for call in range(1, calls_at_the_remote(tmp_path / "count") + 1, STEP):
        path, inner = tmp_path / str(call), DictStorage()
        fill(path)
        dying = FailingStorage(inner, fail_at=call, failure=failure, dies=True)
        replicating = replicator(path, dying)
        with pytest.raises(ProcessDiedError):
            replicating.run_once()
        close(replicating)
        assert prefixes_in_order(inner)
        dying.land()
        assert prefixes_in_order(inner)
        check(path, inner)


@pytest.mark.parametrize("failure", FAILURES)
def test_a_remote_that_fails_at_any_call(tmp_path: Path, failure: Failure) -> None:
    for call in range(1, calls_at_the_remote(tmp_path / "count") + 1, STEP):
        path, inner = tmp_path / str(call), DictStorage()
        fill(path)
        failing = FailingStorage(inner, fail_at=call, failure=failure)
        replicating = replicator(path, failing)
        replicating.run_once()
        assert prefixes_in_order(inner)
        failing.land()
        close(replicating)
        check(path, inner)


@pytest.mark.parametrize("failure", [Failure.NO_EFFECT, Failure.LOST_ANSWER])
@pytest.mark.parametrize("dies", [True, False], ids=["dies", "fails"])
def test_a_spool_that_fails_at_any_call(tmp_path: Path, failure: Failure, dies: bool) -> None:
    for call in spool_calls(tmp_path):
        path, inner = tmp_path / str(call), DictStorage()
        fill(path)
        failing = FailingStorage(LocalStorage(path), fail_at=call, failure=failure, dies=dies)
        replicating = replicator(path, inner, failing)
        with suppress(ProcessDiedError):
            replicating.run_once()
        assert prefixes_in_order(inner)
        with suppress(StateVaultError):
            close(replicating)
        check(path, inner)


def spool_calls(path: Path) -> Iterator[int]:
    yield from range(1, calls_at_the_spool(path / "count") + 1, STEP)


def test_a_commit_whose_note_was_lost_is_not_made_again(tmp_path: Path) -> None:
    fill(tmp_path)
    remote = DictStorage()
    replicating = replicator(tmp_path, remote)
    replicating._folder.note_done = die  # type: ignore[method-assign]
    with pytest.raises(ProcessDiedError):
        replicating.run_once()
    close(replicating)
    assert StateStore(remote).names() == ["1.state"]
    check(tmp_path, remote)
    assert StateStore(remote).names() == ["1.state", "2.state", "3.state"]


@pytest.mark.parametrize("landing", ["before the next start", "after it"])
def test_a_copy_that_died_is_cleared_away_at_once_and_its_marker_comes_too_late(tmp_path: Path, landing: str) -> None:
    fill(tmp_path)
    inner = DictStorage()
    marker = next(
        number
        for number, call in enumerate(calls(tmp_path / "count"), start=1)
        if call.startswith("put _vault/commits/")
    )
    dying = FailingStorage(inner, fail_at=marker, failure=Failure.LATE, dies=True)
    replicating = replicator(tmp_path, dying)
    with pytest.raises(ProcessDiedError):
        replicating.run_once()
    close(replicating)
    assert "1.state/manifest.msgpack.zst" in inner.objects
    if landing == "before the next start":
        dying.land()
    next_one = replicator(tmp_path, inner)
    next_one.run_once()
    close(next_one)
    dying.land()
    names = StateStore(inner).names()
    assert [original(name) for name in names] == list(NUMBERS)
    assert names[0] == ("1.state" if landing == "before the next start" else "1-2.state")
    left = {key.partition("/")[0] for key in inner.objects if not key.startswith("_vault/")}
    assert left == set(names)
    assert not [key for key in inner.objects if key.startswith("_vault/sessions/")]


def test_what_others_need_stays_when_a_dead_copy_is_cleared_away(tmp_path: Path) -> None:
    fill(tmp_path)
    inner = DictStorage()
    shared = Folder({"frozen": bytes(range(256)) * 1000, "step": b"0"})
    with StateStore(inner) as other:
        other.register("shared", shared)
        other.save_state(name="other-a.state")
        shared.files["step"] = b"1"
        other.save_state(name="other-b.state")
        assert other.info("other-b.state").base == "other-a.state"
        # A prune that was interrupted: the first is dead, and what the second needs of it is still there.
        put_tombstone(inner, other._catalog.find("other-a.state"), by="test", reason="test")
    dying = FailingStorage(inner, fail_at=len(calls(tmp_path / "count")) // 4, dies=True)
    replicating = replicator(tmp_path, dying)
    with pytest.raises(ProcessDiedError):
        replicating.run_once()
    close(replicating)
    assert [key for key in inner.objects if key.startswith("_vault/sessions/")]
    next_one = replicator(tmp_path, inner)
    next_one.run_once()
    close(next_one)
    StateStore(inner).verify("other-b.state")


def calls(path: Path) -> list[str]:
    counting = FailingStorage(DictStorage())
    fill(path)
    replicating = replicator(path, counting)
    replicating.run_once()
    close(replicating)
    return counting.calls


def die(*_: object, **__: object) -> None:
    raise ProcessDiedError


def test_few_markers_of_others_are_read(tmp_path: Path) -> None:
    fill(tmp_path)
    remote = DictStorage()
    with StateStore(remote) as other:
        other.register("other", Folder({"x": b"1"}))
        for number in range(20):
            other.save_state(name=f"other-{number}.state")
    counting = FailingStorage(remote)
    replicating = replicator(tmp_path, counting)
    replicating.run_once()
    close(replicating)
    read = [call for call in counting.calls if call.startswith("get _vault/commits/") and "other" in call]
    assert len(read) == 1  # of the newest, which may have chunks to share
