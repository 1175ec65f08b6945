"""Pipes, sockets, devices, links and deep folders in a local store: nothing hangs, nothing is followed."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from statevault.errors import CorruptStateError, ObjectExistsError, ObjectNotFoundError, StorageAccessError
from statevault.state_persistence import StateStore
from statevault.storage import LocalStorage
from tests.state_persistence.components import Folder, store_with


def make_socket(path: Path) -> None:
    # The path of a socket is short.
    here = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def make_device(path: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))  # /dev/zero
    except PermissionError:
        pytest.skip("only root makes devices")


def make_link(path: Path) -> None:
    elsewhere = path.parents[-3] / "elsewhere"
    elsewhere.write_bytes(b"secret" * 1000)
    path.symlink_to(elsewhere)


SPECIAL: dict[str, Callable[[Path], None]] = {"pipe": os.mkfifo, "socket": make_socket, "device": make_device}


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    storage = LocalStorage(tmp_path / "store")
    storage.put("a/key", b"content")
    storage.put("a/other", b"more")
    (tmp_path / "store/a/key").unlink()
    return storage


@pytest.mark.parametrize("make", SPECIAL.values(), ids=SPECIAL.keys())
def test_what_is_no_file_is_an_object_without_bytes(
    storage: LocalStorage, make: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    make(storage.root / "a/key")
    assert [(info.key, info.size) for info in storage.list()] == [("a/key", 0), ("a/other", 4)]
    assert storage.head("a/key").size == 0
    assert storage.get("a/key") == b""
    assert "a/key is a pipe, a socket or a device" in caplog.text
    assert "remove it" in caplog.text
    with pytest.raises(OSError, match="has 0 bytes"):
        storage.get("a/key", 0, 7)
    with pytest.raises(OSError, match="has 0 bytes"):
        storage.get_into("a/key", 0, memoryview(bytearray(7)))
    with pytest.raises(ObjectExistsError):
        storage.put("a/key", b"content", create_only=True)
    storage.put("a/key", b"content")
    assert storage.get("a/key") == b"content"


@pytest.mark.parametrize("make", SPECIAL.values(), ids=SPECIAL.keys())
def test_what_is_no_file_can_be_deleted(storage: LocalStorage, make: Callable[[Path], None]) -> None:
    make(storage.root / "a/key")
    storage.delete(["a/key"])
    assert [info.key for info in storage.list()] == ["a/other"]


def test_in_the_root_such_things_are_not_the_stores(storage: LocalStorage) -> None:
    os.mkfifo(storage.root / "pipe")
    with pytest.raises(ObjectNotFoundError):
        storage.get("pipe")
    with pytest.raises(ObjectNotFoundError):
        storage.head("pipe")


@pytest.mark.parametrize("key", ["a/key", "key"])
def test_a_file_that_is_a_link_is_not_followed(storage: LocalStorage, tmp_path: Path, key: str) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (storage.root / key).symlink_to(tmp_path / "secret")
    with pytest.raises(StorageAccessError, match=r"is a symbolic link.*Replace it"):
        storage.get(key)
    with pytest.raises(StorageAccessError, match="is a symbolic link"):
        storage.get_into(key, 0, memoryview(bytearray(6)))
    storage.put(key, b"content")
    assert storage.get(key) == b"content"
    assert (tmp_path / "secret").read_bytes() == b"secret"


def test_a_folder_that_is_a_link_is_not_looked_into(storage: LocalStorage, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/key").write_bytes(b"secret")
    (storage.root / "linked").symlink_to(tmp_path / "elsewhere")
    for look in (storage.get, storage.head, storage.exists):
        with pytest.raises(StorageAccessError, match="is a symbolic link"):
            look("linked/key")


def test_links_above_the_root_are_the_users_own(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "states").symlink_to(tmp_path / "disk")
    for root in (tmp_path / "states", tmp_path / "states/run"):
        storage = LocalStorage(root)
        storage.put("a/key", b"content")
        assert storage.get("a/key") == b"content"
        assert [info.key for info in storage.list("a/")] == ["a/key"]


def test_a_link_that_leads_back_is_not_gone_round(storage: LocalStorage) -> None:
    (storage.root / "a/key").symlink_to(storage.root)
    with pytest.raises(StorageAccessError, match="is a symbolic link"):
        list(storage.list())


@pytest.fixture
def deep(storage: LocalStorage) -> Iterator[Path]:
    """A folder below which others may be made: pytest would not remove what is too deep for it."""
    yield storage.root / "deep"
    subprocess.run(["rm", "-rf", storage.root / "deep"], check=True)


def make_deep(folder: Path, levels: int, name: str) -> None:
    here = Path.cwd()
    folder.mkdir()
    os.chdir(folder)
    try:
        for _ in range(levels):
            Path(name).mkdir()
            os.chdir(name)
        Path("key").write_bytes(b"content")
    finally:
        os.chdir(here)


@pytest.mark.parametrize(("levels", "name", "seen"), [(1500, "d", True), (5000, "d", False), (30, "n" * 200, False)])
def test_folders_of_any_depth_are_listed_as_far_as_paths_go(
    storage: LocalStorage, deep: Path, levels: int, name: str, *, seen: bool
) -> None:
    make_deep(deep, levels, name)
    listed = [info.key for info in storage.list()]
    assert listed == ["a/other", *["deep/" + f"{name}/" * levels + "key"] * seen]
    storage.settle()


def states_in(folder: Path) -> StateStore:
    return store_with(folder, folder=Folder({"step": b"1" * 5000}))


DATA = "new.state/folder/step.zst"
RECORDS = {
    "marker": "_vault/commits/000000000002.new.state",
    "manifest": "new.state/manifest.msgpack.zst",
    "data": DATA,
}


@pytest.mark.parametrize("what", RECORDS)
@pytest.mark.parametrize("kind", [*SPECIAL, "link"])
def test_a_state_with_something_else_in_it_is_damaged(tmp_path: Path, what: str, kind: str) -> None:
    root = tmp_path / "states"
    with states_in(root) as store:
        store.save_state(name="old.state")
    with store_with(root, folder=Folder({"step": b"2" * 5000})) as store:
        store.save_state(name="new.state")
    path = root / RECORDS[what]
    path.unlink()
    {**SPECIAL, "link": make_link}[kind](path)
    folder = Folder()
    with store_with(root, folder=folder) as store:
        if kind == "link" and what == "marker":
            # All that lies there may be links: nobody can tell which states there are.
            with pytest.raises(StorageAccessError, match="is a symbolic link"):
                store.load_state()
            return
        assert store.load_state().name == "old.state"
        assert folder.files == {"step": b"1" * 5000}
        for read in (store.load_state, store.verify):
            with pytest.raises(CorruptStateError, match="symbolic link" if kind == "link" else "damaged"):
                read("new.state")
        assert [state.name for state in store.states()] == ["old.state", "new.state"][: 1 + (what != "marker")]
        assert store.names() == ["old.state", "new.state"]


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("record", ["tombstones/000000000009.x.state", "sessions/x.state", "intents/" + "0" * 16])
def test_a_record_that_is_no_file_is_a_damaged_record(tmp_path: Path, kind: str, record: str) -> None:
    root = tmp_path / "states"
    with states_in(root) as store:
        store.save_state(name="old.state")
        path = root / "_vault" / record
        path.parent.mkdir(exist_ok=True)
        SPECIAL[kind](path)
        assert store.load_state().name == "old.state"
        store.save_state(name="next.state")
        assert store.names() == ["old.state", "next.state"]
