"""Several users of one spool: one of them replicates, whoever saves; the next one takes over."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import warnings
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from statevault.state_persistence import StateStore
from statevault.state_persistence.spool import ReplicationPhase, ReplicationStatus
from statevault.state_persistence.spool.lock import SpoolLock
from tests.state_persistence.components import Folder
from tests.state_persistence.garbage import check_no_garbage
from tests.state_persistence.spool.spooling import Remote, numbered, save, spooled, until
from tests.state_persistence.storages import DictStorage


def status(store: StateStore) -> ReplicationStatus:
    found = store.replication()
    assert found is not None
    return found


def test_the_second_store_is_told_and_the_first_replicates_for_both(tmp_path: Path) -> None:
    remote, folder = Remote(), Folder()
    with spooled(remote, tmp_path, folder) as first:
        save(first, folder, 1)
        first.flush(300)
        with spooled(remote, tmp_path, folder) as second:
            until(lambda: status(second).phase is ReplicationPhase.ELSEWHERE)
            save(second, folder, 2)
            second.flush(300)
            assert StateStore(remote.inner).names() == ["1.state", "2.state"]
            until(lambda: status(first).replicated == 2)
            assert status(second).replicated == 0


def test_the_second_store_takes_over_when_the_first_is_closed(tmp_path: Path) -> None:
    remote, folder = Remote(), Folder()
    first = spooled(remote, tmp_path, folder)
    save(first, folder, 1)
    first.flush(300)
    with spooled(remote, tmp_path, folder) as second:
        until(lambda: status(second).phase is ReplicationPhase.ELSEWHERE)
        first.close()
        save(second, folder, 2)
        second.flush(300)
        assert status(second).replicated == 1
    assert StateStore(remote.inner).names() == ["1.state", "2.state"]


def test_many_threads_of_two_stores_lose_nothing(tmp_path: Path) -> None:
    remote = Remote()
    with spooled(remote, tmp_path) as first, spooled(remote, tmp_path) as second:

        def save_some(store: StateStore) -> None:
            for _ in range(5):
                store.save_state()

        threads = [threading.Thread(target=save_some, args=(store,)) for store in (first, second) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        first.flush(300)
        second.flush(300)
    assert len(StateStore(remote.inner).names()) == 20
    check_no_garbage(remote.inner)


def hold_the_spool(remote: str, path: Path, ready: Connection) -> None:
    """A process that replicates a spool until it is killed."""
    folder = Folder()
    store = spooled(remote, path, folder)
    save(store, folder, 1)
    store.flush(300)
    ready.send("replicated")
    while True:
        ready.poll(60.0)


def test_a_process_takes_over_from_one_that_is_killed(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    receiver, sender = context.Pipe(duplex=True)
    remote, path, folder = str(tmp_path / "remote"), tmp_path / "spool", Folder()
    process = context.Process(target=hold_the_spool, args=(remote, path, sender), daemon=True)
    process.start()
    assert receiver.recv() == "replicated"
    with spooled(remote, path, folder) as store:
        until(lambda: status(store).phase is ReplicationPhase.ELSEWHERE)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        save(store, folder, 2)
        store.flush(300)
        assert status(store).replicated == 1
        assert store.names() == ["1.state", "2.state"]


def test_what_a_killed_save_has_left_goes_when_nobody_else_uses_the_spool(tmp_path: Path) -> None:
    remote, folder = Remote(), Folder()
    with spooled(remote, tmp_path, folder) as store:
        save(store, folder, 1)
        store.flush(300)
    with StateStore(tmp_path) as store:  # as a process leaves it that was killed in a save
        store.register("folder", Folder(numbered(2)))
        store._storage.delete = never  # type: ignore[method-assign]
        original = store._storage.put

        def put(key: str, body: object, *, create_only: bool = False) -> int:
            if "/commits/" in key:
                raise KeyboardInterrupt
            return original(key, body, create_only=create_only)  # type: ignore[arg-type]

        store._storage.put = put  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            store.save_state(name="2.state")
    assert list((tmp_path / "2.state").rglob("*"))
    with spooled(remote, tmp_path, folder) as first:
        save(first, folder, 3)
        first.flush(300)
        assert not [path for path in (tmp_path / "2.state").rglob("*") if path.is_file()]


def test_garbage_of_the_spool_is_collected_at_the_start(tmp_path: Path) -> None:
    remote, folder = Remote(), Folder()
    with spooled(remote, tmp_path, folder) as store:
        save(store, folder, 1, 2)
        store.flush(300)
        until(lambda: StateStore(tmp_path).names() == ["2.state"])
    late = tmp_path / "1.state" / "folder" / "number.zst"
    late.parent.mkdir(parents=True, exist_ok=True)
    assert not late.exists()
    late.write_bytes(b"landed late")
    with spooled(remote, tmp_path, folder) as store:
        until(lambda: not late.exists())
        assert store.names() == ["1.state", "2.state"]


def never(keys: object) -> None:
    raise KeyboardInterrupt


def test_locks_are_shared_or_held_alone(tmp_path: Path) -> None:
    one, two = SpoolLock(tmp_path / "deep" / "lock"), SpoolLock(tmp_path / "deep" / "lock")
    assert one.try_acquire()
    assert one.try_acquire()
    assert not two.try_acquire()
    one.share()
    two.share()
    one.release()
    assert not SpoolLock(tmp_path / "deep" / "lock").try_acquire()
    two.release()
    assert one.try_acquire()
    one.release()


def test_a_forked_child_does_not_hold_the_lock_of_its_parent(tmp_path: Path) -> None:
    lock = SpoolLock(tmp_path / "lock")
    assert lock.try_acquire()
    begun, told = os.pipe()
    held, let_go = os.pipe()
    with warnings.catch_warnings():  # it does nothing that threads of the parent could have begun
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        os.write(told, b"x")
        os.close(let_go)
        os.read(held, 1)  # until the parent has looked
        os._exit(0)
    os.read(begun, 1)
    lock.release()
    again = SpoolLock(tmp_path / "lock")
    assert again.try_acquire()
    again.release()
    for end in (begun, told, held, let_go):
        os.close(end)
    assert os.waitpid(child, 0)[1] == 0


def test_a_remote_that_others_prune_meanwhile_stays_in_order(tmp_path: Path) -> None:
    remote, folder = Remote(), Folder()

    def prune_all(call: str) -> None:
        if call.startswith("put _vault/commits/") and names(remote.inner):
            StateStore(remote.inner).remove(names(remote.inner)[:-1])

    with spooled(remote, tmp_path, folder) as store:
        remote.before = prune_all
        save(store, folder, *range(1, 8))
        store.flush(300)
        left = names(remote.inner)
        assert left == ["6.state", "7.state"]
        for name in left:
            StateStore(remote.inner).verify(name)
    check_no_garbage(remote.inner)


def names(storage: DictStorage) -> list[str]:
    return StateStore(storage).names()


def test_a_state_that_was_removed_at_the_remote_does_not_come_back(tmp_path: Path) -> None:
    remote, folder = Remote(), Folder()
    with spooled(remote, tmp_path, folder) as store:
        save(store, folder, 1)
        store.flush(300)
        StateStore(remote.inner).remove(["1.state"])
        save(store, folder, 2)
        store.flush(300)
        assert names(remote.inner) == ["2.state"]
    with spooled(remote, tmp_path, folder) as store:
        save(store, folder, 3)
        store.flush(300)
        assert names(remote.inner) == ["2.state", "3.state"]
