"""A disk that another program fills to the last byte: states are dropped all the same, which needs small writes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from statevault.errors import StorageFullError
from statevault.state_persistence import StateStore
from statevault.state_persistence.spool.ledger import FOLDER
from statevault.state_persistence.spool.reserve import LEAST_RESERVED_FILES, RESERVED_FILES, Reserve
from tests.state_persistence.components import Folder
from tests.state_persistence.spool.full_disk import Disk
from tests.state_persistence.spool.spooling import Remote, quick, spooled, until
from tests.state_persistence.spool.test_bounds import save_more_noise, status

FILLS = (Disk.fill_blocks, Disk.fill_inodes)


def kept(path: Path) -> list[object]:
    return [info.metadata["number"] for info in StateStore(path).states()]


def reserved(path: Path) -> int:
    """How many files of the reserve are there."""
    return len(list(reserve_folder(path).iterdir()))


def reserve_folder(path: Path) -> Path:
    return path / FOLDER / ".tmp-reserve"


@pytest.mark.parametrize("fill", FILLS)
def test_a_disk_that_another_program_fills_costs_states_that_wait_and_not_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fill: Callable[[Disk], None]
) -> None:
    disk = Disk.below(tmp_path, monkeypatch)
    remote, folder = Remote(), Folder()
    remote.go_down()
    with spooled(remote, tmp_path, folder) as store:
        save_more_noise(store, folder, 1, 2, 3, 4)
        until(lambda: status(store).copying is not None)
        for number in range(5, 9):
            fill(disk)  # each time anew: what was freed is taken as well
            save_more_noise(store, folder, number)
            assert kept(tmp_path)[-1] == number
            store.verify("latest")
        assert status(store).dropped >= 4
        disk.empty()
        remote.come_up()
        store.flush(300)
        assert StateStore(remote.inner).latest() is not None
        assert reserved(tmp_path) == RESERVED_FILES


@pytest.mark.parametrize("fill", FILLS)
def test_a_disk_with_room_for_few_states_gets_stuck_in_no_way_when_it_stays_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fill: Callable[[Disk], None]
) -> None:
    """Each dropped state leaves a record: when these have used up all room, saves fail, and all else goes on."""
    disk = Disk.below(tmp_path, monkeypatch)
    remote, folder = Remote(), Folder()
    remote.go_down()
    with spooled(remote, tmp_path, folder) as store:
        save_more_noise(store, folder, 1, 2, 3)
        until(lambda: status(store).copying is not None)
        fill(disk)
        saved = [3]
        notes: list[str] = []
        for number in range(4, 200):
            try:
                save_more_noise(store, folder, number)
            except StorageFullError as error:
                notes += error.__notes__[-1:]
            else:
                saved.append(number)
            assert kept(tmp_path)[-1] == saved[-1]
            if len(notes) == 5:
                break
        assert len(saved) > 5
        assert len(notes) == 5
        assert all("nothing left to drop but its newest state" in note for note in notes)
        assert reserved(tmp_path) >= LEAST_RESERVED_FILES
        remote.come_up()
        store.flush(300)
        assert StateStore(remote.inner).latest() is not None
        until(lambda: len(kept(tmp_path)) == 1)
        disk.empty()
        save_more_noise(store, folder, 100)
        store.flush(300)


@pytest.mark.parametrize("fill", FILLS)
def test_many_states_are_dropped_with_little_room_for_the_records_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fill: Callable[[Disk], None]
) -> None:
    disk = Disk.below(tmp_path, monkeypatch)
    remote, folder = Remote(), Folder()
    remote.go_down()
    with spooled(remote, tmp_path, folder) as store:
        for number in range(60):
            folder.files = {"small": str(number).encode()}
            store.save_state(metadata={"number": number})
        fill(disk)
        save_more_noise(store, folder, 60)
        assert kept(tmp_path)[-1] == 60
        assert status(store).dropped > 10


def test_replication_goes_on_and_makes_room_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk.below(tmp_path, monkeypatch)
    remote, folder = Remote(), Folder()
    remote.go_down()
    with spooled(remote, tmp_path, folder) as store:
        save_more_noise(store, folder, 1, 2, 3)
        until(lambda: status(store).copying is not None)
        disk.fill_blocks()
        remote.come_up()
        store.flush(300)
        assert [info.metadata["number"] for info in StateStore(remote.inner).states()] == [1, 2, 3]
        until(lambda: kept(tmp_path) == [3])


def test_a_spool_that_holds_too_much_is_bounded_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk.below(tmp_path, monkeypatch)
    remote, folder = Remote(), Folder()
    remote.go_down()
    with spooled(remote, tmp_path, folder) as store:
        save_more_noise(store, folder, *range(6))
        until(lambda: status(store).copying is not None)
    disk.fill_blocks()
    with spooled(remote, quick(tmp_path, max_bytes=50_000), folder) as store:
        assert store._spool is not None
        store._spool.room.bound()
        assert len(kept(tmp_path)) < 5


def test_a_disk_without_room_for_a_removal_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk.below(tmp_path, monkeypatch)
    remote, folder = Remote(), Folder()
    remote.go_down()
    with spooled(remote, tmp_path, folder) as store:
        save_more_noise(store, folder, 1, 2, 3)
        Reserve(tmp_path).release()
        disk.fill_blocks()
        with pytest.raises(StorageFullError) as caught:
            save_more_noise(store, folder, 4)
        assert "no room for the records of" in caught.value.__notes__[-1]
        assert kept(tmp_path) == [1, 2, 3]


# -- the reserve itself


def test_a_reserve_is_allocated_and_no_object_of_the_store(tmp_path: Path) -> None:
    remote, folder = Remote(), Folder()
    with spooled(remote, quick(tmp_path, max_bytes=100_000), folder) as store:
        save_more_noise(store, folder, 1, 2)
        store.flush(300)
        assert reserved(tmp_path) == RESERVED_FILES
        files = [file.stat() for file in reserve_folder(tmp_path).iterdir()]
        assert sum(file.st_blocks * 512 for file in files) >= 256 * 1024
        assert not [info.key for info in StateStore(tmp_path)._storage.list() if "reserve" in info.key]
        StateStore(tmp_path).gc()
        assert reserved(tmp_path) == RESERVED_FILES
        assert status(store).dropped == 0  # it does not count


@pytest.mark.parametrize("damage", ["missing", "short", "all missing"])
def test_a_reserve_is_made_whole_after_a_crash(tmp_path: Path, damage: str) -> None:
    reserve = Reserve(tmp_path)
    Path(tmp_path, FOLDER).mkdir()
    reserve.fill()
    files = sorted(reserve_folder(tmp_path).iterdir())
    sizes = [file.stat().st_size for file in files]
    if damage == "short":
        os.truncate(files[2], 100)
    else:
        for file in files if damage == "all missing" else files[2:3]:
            file.unlink()
    reserve.fill()
    assert sorted(reserve_folder(tmp_path).iterdir()) == files
    assert [file.stat().st_size for file in files] == sizes
    assert reserve.release()
    assert not reserve.release()
    assert reserved(tmp_path) == 0


def test_a_reserve_takes_what_room_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk.below(tmp_path, monkeypatch)
    Path(tmp_path, FOLDER).mkdir()
    disk.blocks = disk.used()[0] + 6  # one of them for the folder
    reserve = Reserve(tmp_path)
    reserve.fill()
    assert reserved(tmp_path) == 2
    disk.empty()
    reserve.fill()
    assert reserved(tmp_path) == RESERVED_FILES


def test_a_folder_in_which_nothing_can_be_made_has_no_reserve(tmp_path: Path) -> None:
    reserve = Reserve(tmp_path / "missing")
    reserve.fill()
    assert not reserve.release()
    reserve_folder(tmp_path).parent.mkdir()
    reserve_folder(tmp_path).write_bytes(b"somebody's")
    reserve = Reserve(tmp_path)
    reserve.fill()
    assert not reserve.release()
    assert reserve_folder(tmp_path).read_bytes() == b"somebody's"
