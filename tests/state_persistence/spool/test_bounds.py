"""A spool that holds too much, and a disk that is full: what is dropped, and that the newest state never is."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from typing_extensions import override

from statevault.errors import StorageFullError
from statevault.state_persistence import StateStore
from statevault.state_persistence.spool import ReplicationStatus
from statevault.state_persistence.spool.spooled_states import SpooledStates
from statevault.storage import Body, LocalStorage
from tests.state_persistence.components import Folder
from tests.state_persistence.spool.spooling import Remote, quick, spooled, until
from tests.state_persistence.storages import joined

SIZE = 20_000


def status(store: SpooledStates) -> ReplicationStatus:
    found = store.replication()
    assert found is not None
    return found


def save_noise(store: StateStore, folder: Folder, *numbers: int) -> None:
    """Save states that share nothing."""
    for number in numbers:
        folder.files = {"noise": random.Random(number).randbytes(SIZE)}
        store.save_state(name=f"{number}.state")


def test_an_outage_is_thinned_evenly_and_the_newest_stays(tmp_path: Path) -> None:
    remote, folder = Remote(), Folder()
    remote.go_down()
    with spooled(remote, quick(tmp_path, max_bytes=5 * SIZE), folder) as store:
        save_noise(store, folder, 1)
        until(lambda: status(store).copying == "1.state")
        save_noise(store, folder, *range(2, 10))
        kept = StateStore(tmp_path).names()
        assert kept == ["1.state", "5.state", "8.state", "9.state"]
        assert status(store).dropped == 5
        assert status(store).pending == 4
        remote.come_up()
        store.flush(300)
        assert StateStore(remote.inner).names() == kept
        for name in kept:
            StateStore(remote.inner).verify(name)


def test_what_is_replicated_goes_first(tmp_path: Path) -> None:
    remote, folder = Remote(), Folder()
    with spooled(remote, quick(tmp_path, max_bytes=3 * SIZE + SIZE // 2, keep_replicated=9), folder) as store:
        save_noise(store, folder, 1, 2)
        store.flush(300)
        remote.go_down()
        save_noise(store, folder, 3, 4)
        assert StateStore(tmp_path).names() == ["2.state", "3.state", "4.state"]
        save_noise(store, folder, 5)
        assert StateStore(tmp_path).names() == ["3.state", "4.state", "5.state"]
        assert status(store).dropped == 0


def test_a_bound_smaller_than_a_state_keeps_the_newest(tmp_path: Path) -> None:
    remote, folder = Remote(), Folder()
    remote.go_down()
    with spooled(remote, quick(tmp_path, max_bytes=1), folder) as store:
        save_noise(store, folder, 1, 2, 3)
        kept = StateStore(tmp_path).names()
        assert kept[-1] == "3.state"
        assert len(kept) <= 2  # and the one that is under way
    with spooled(remote, quick(tmp_path, max_bytes=1), folder) as store:
        assert store.load_state("latest").name == "3.state"


def test_a_pinned_state_is_not_dropped(tmp_path: Path) -> None:
    remote, folder = Remote(), Folder()
    remote.go_down()
    with spooled(remote, quick(tmp_path, max_bytes=3 * SIZE), folder) as store:
        save_noise(store, folder, 1, 2)
        store.pin("2.state")
        save_noise(store, folder, *range(3, 8))
        assert "2.state" in StateStore(tmp_path).names()


class SmallDisk(LocalStorage):
    """A disk that holds so many bytes of data; records always find room."""

    room = 0

    @override
    def put(self, key: str, body: Body, *, create_only: bool = False) -> int:
        content = joined(body)
        used = sum(info.size for info in self.list() if not info.key.startswith("_"))
        if not key.startswith("_") and used + len(content) > self.room:
            raise StorageFullError(f"no room for {key}", key=key)
        return super().put(key, content, create_only=create_only)


def on_a_small_disk(
    path: Path, room: int, remote: Remote, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> StateStore:
    monkeypatch.setattr("statevault.state_persistence.spool.folder.LocalStorage", SmallDisk)
    monkeypatch.setattr(SmallDisk, "room", room)
    return spooled(remote, path, folder)


def save_more_noise(store: StateStore, folder: Folder, *numbers: int) -> list[str]:
    names = []
    for number in numbers:
        folder.files = {"noise": random.Random(number).randbytes(SIZE)}
        names.append(store.save_state(metadata={"number": number}).name)
    return names


def test_a_full_disk_costs_older_states_and_not_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remote, folder = Remote(), Folder()
    remote.go_down()
    with on_a_small_disk(tmp_path, 4 * SIZE, remote, folder, monkeypatch) as store:
        save_more_noise(store, folder, *range(8))
        kept = [info.metadata["number"] for info in StateStore(tmp_path).states()]
        assert kept[-1] == 7
        assert 2 <= len(kept) <= 4
        for info in StateStore(tmp_path).states():
            store.verify(info.name)


def test_a_full_disk_gives_up_replicated_states_before_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remote, folder = Remote(), Folder()
    with on_a_small_disk(tmp_path, 5 * SIZE, remote, folder, monkeypatch) as store:
        save_more_noise(store, folder, 1)
        store.flush(300)
        remote.go_down()
        save_more_noise(store, folder, 2, 3, 4, 5)
        assert [info.metadata["number"] for info in StateStore(tmp_path).states()] == [2, 3, 4, 5]
        assert status(store).dropped == 0


def test_a_disk_with_room_for_nothing_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remote, folder = Remote(), Folder()
    remote.go_down()
    with on_a_small_disk(tmp_path, SIZE + SIZE // 2, remote, folder, monkeypatch) as store:
        save_more_noise(store, folder, 1)
        with pytest.raises(StorageFullError) as caught:
            save_more_noise(store, folder, 2)
        assert "nothing left to drop but its newest state" in caught.value.__notes__[-1]
        assert [info.metadata["number"] for info in StateStore(tmp_path).states()] == [1]
        SmallDisk.room = 10 * SIZE
        save_more_noise(store, folder, 3)


def test_a_name_that_was_given_is_not_used_twice_on_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote, folder = Remote(), Folder()
    remote.go_down()
    with on_a_small_disk(tmp_path, 4 * SIZE, remote, folder, monkeypatch) as store:
        save_noise(store, folder, 1)
        until(lambda: status(store).copying == "1.state")
        save_noise(store, folder, 2, 3)
        with pytest.raises(StorageFullError) as caught:
            save_noise(store, folder, 4)
        assert "save again under another one" in caught.value.__notes__[-1]
        save_noise(store, folder, 5)
        assert StateStore(tmp_path).names() == ["1.state", "3.state", "5.state"]
